"""Printing: the texts of numbers, intervals, p values, lists of names and Markdown tables."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.experiments.common import reports, statistics

FINITE = st.floats(-1e9, 1e9)


# --- Numbers --------------------------------------------------------------------------------------


@given(FINITE, st.integers(0, 6), st.sampled_from([1, 100, -1]))
def test_a_decimal_is_the_format_of_python(value, digits, factor):
    assert reports.decimal(value, digits, factor=factor) == f"{factor * value:.{digits}f}"
    assert reports.decimal(value, digits, thousands=True) == f"{value:,.{digits}f}"


@given(FINITE, st.integers(0, 6))
def test_an_unsigned_zero_changes_nothing_but_the_sign_of_a_zero(value, digits):
    text = reports.decimal(value, digits, unsigned_zero=True)
    assert text == f"{round(value, digits) + 0.0:.{digits}f}"


def test_decimals_by_hand():
    assert reports.decimal(0.126) == "0.13"
    assert reports.decimal(-0.001) == "-0.00"
    assert reports.decimal(-0.001, unsigned_zero=True) == "0.00"
    assert reports.decimal(-0.4, 0, unsigned_zero=True) == "0"
    assert reports.decimal(-0.01, unsigned_zero=True) == "-0.01"
    assert reports.decimal(12345.6, 0, thousands=True) == "12,346"
    assert reports.decimal(None) == reports.decimal(math.nan) == "–"
    assert reports.decimal(None, missing="never") == "never"
    assert reports.decimal(math.inf) == "inf"


@pytest.mark.parametrize("value", [(1190.4, 42.6), [1190.4, 42.6], (1190.4, 42.6, 25)])
def test_mean_and_deviation_of_any_record(value):
    assert reports.mean_sd(value, 0) == "1190 ± 43"
    assert reports.mean_sd({"mean": value[0], "sd": value[1], "se": 8.5}, 0) == "1190 ± 43"
    assert reports.mean_sd(np.array(value), 0) == "1190 ± 43"


def test_mean_and_deviation_by_hand():
    assert reports.mean_sd((0.1234, 0.056), 1, factor=100) == "12.3 ± 5.6"
    assert reports.mean_sd((12345.6, 1234.5), 0, thousands=True) == "12,346 ± 1,234"
    assert reports.mean_sd((-0.001, 0.001), 2) == "-0.00 ± 0.00"
    assert reports.mean_sd((-0.001, 0.001), 2, unsigned_zero=True) == "0.00 ± 0.00"
    assert reports.mean_sd((98.09, None)) == "98.09"
    assert reports.mean_sd(None) == "–"
    assert reports.mean_sd({"mean": 1.0, "sd": None}, 1) == "1.0"
    with pytest.raises(InputError, match="value: wanted a mean and a deviation"):
        reports.mean_sd((1.0,))


@pytest.mark.parametrize(
    "value",
    [(0.1234, 0.05, 0.194), {"estimate": 0.1234, "low": 0.05, "high": 0.194, "level": 0.95}],
)
def test_an_interval_of_any_record(value):
    assert reports.interval(value) == "0.12 [0.05, 0.19]"
    assert reports.interval(value, 1, factor=100) == "12.3 [5.0, 19.4]"


def test_intervals_by_hand():
    assert reports.interval(None) == "–"
    assert reports.interval((1, -0.001, 2), unsigned_zero=True) == "1.00 [0.00, 2.00]"
    assert reports.interval((1.0, None, None), 1) == "1.0 [–, –]"
    assert reports.interval((1e4, 1e3, 1e5), 0, thousands=True) == "10,000 [1,000, 100,000]"
    with pytest.raises(InputError, match="value: wanted an estimate and two bounds"):
        reports.interval((1.0, 2.0))


def test_the_records_of_statistics_are_printed():
    values, constant = [1.0, 2.0, 6.0], [1.0, 1.0, 1.0]
    summary = statistics.describe(values)
    interval = statistics.paired_interval(values, constant)
    assert reports.mean_sd(summary) == reports.mean_sd(summary.record()) == "3.00 ± 2.65"
    assert reports.interval(interval) == reports.interval(interval.record()) == "2.00 [-4.57, 8.57]"
    assert reports.mean_sd(statistics.describe([2.5])) == "2.50"
    assert reports.interval(statistics.t_interval([2.5])) == "2.50 [–, –]"
    assert reports.p_value(statistics.paired_t_test(values, constant).p, name="p") == "p = 0.32"
    assert reports.p_value(statistics.paired_t_test(constant, 1.0).p) == "–"
    text = reports.proportion(3, 25, statistics.wilson_interval(3, 25))
    assert text == "3 of 25, 12 % [4, 30]"
    assert reports.basis(3, deviation=summary.deviation) == "mean ± sample SD over 3 runs"


@given(st.floats(0, 1), st.integers(1, 4))
def test_a_p_value_has_significant_digits(p, digits):
    assert reports.p_value(p, digits) == f"{p:.{digits}g}"
    assert reports.p_value(p, digits, name="p") == f"p = {p:.{digits}g}"


def test_p_values_by_hand():
    assert reports.p_value(0.01234) == "0.012"
    assert reports.p_value(2.34e-5, name="p", coarse_below=1e-4) == "p = 2e-05"
    assert reports.p_value(2.34e-4, name="p", coarse_below=1e-4) == "p = 0.00023"
    assert reports.p_value(2e-4, smallest=0.001) == "< 0.001"
    assert reports.p_value(2e-4, name="p", smallest=0.001) == "p < 0.001"
    assert reports.p_value(0.001, name="p", smallest=0.001) == "p = 0.001"
    assert reports.p_value(None) == reports.p_value(math.nan, name="p") == "–"
    for bad in (-0.1, 1.1, math.inf):
        with pytest.raises(InputError, match="p: wanted"):
            reports.p_value(bad)


def test_a_proportion_is_a_count_of_how_many():
    assert reports.proportion(3, 25) == "3 of 25"
    assert reports.proportion(3, 25, (0.12, 0.0417, 0.2996)) == "3 of 25, 12 % [4, 30]"
    assert reports.proportion(0, 8, (0.0, 0.0, 0.324), 1) == "0 of 8, 0.0 % [0.0, 32.4]"
    for count, n in ((26, 25), (-1, 25), (0, 0), (1.0, 2)):
        with pytest.raises(InputError, match=r"count: wanted|n: wanted"):
            reports.proportion(count, n)


def test_the_published_value_stands_in_brackets():
    assert reports.with_published("13.1 ± 0.4", 13.9) == "13.1 ± 0.4 (13.9)"
    assert reports.with_published("13.1 ± 0.4", 14.0, "g") == "13.1 ± 0.4 (14)"
    assert reports.with_published("1190 ± 43", "1124 ± 45") == "1190 ± 43 (1124 ± 45)"
    assert reports.with_published("13.1 ± 0.4", None) == "13.1 ± 0.4"
    assert reports.with_published("0.0", 0) == "0.0 (0)"


# --- Words ----------------------------------------------------------------------------------------


def test_names_are_joined():
    assert reports.join(["a"]) == "a"
    assert reports.join(["a", "b"]) == "a and b"
    assert reports.join(("a", 2, 3.5), "or") == "a, 2 or 3.5"
    assert reports.join(name for name in "abc") == "a, b and c"
    assert reports.join([]) == "nothing"
    assert reports.join([], empty="none") == "none"


def test_only_one_is_singular():
    assert [reports.plural(n, "run") for n in (0, 1, 2, 25)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "25 runs",
    ]
    assert reports.plural(1, "class", "classes") == "1 class"
    assert reports.plural(2, "class", "classes") == "2 classes"
    assert reports.plural(np.int64(2), "seed") == "2 seeds"


def test_each_spread_says_of_what_and_of_how_many():
    assert reports.basis(25, deviation="sample") == "mean ± sample SD over 25 runs"
    assert reports.basis(10, deviation="population") == "mean ± population SD over 10 runs"
    assert reports.basis(1, "seed", deviation="error") == "mean ± standard error over 1 seed"
    text = reports.basis(25, deviation="sample", measure="percent wrong", sentence=True)
    assert text == "Percent wrong, mean ± sample SD over 25 runs"
    text = reports.basis(25, "start", deviation="sample", words="SD", sentence=True)
    assert text == "Mean ± SD over 25 starts"
    with pytest.raises(InputError, match="deviation: wanted one of sample, population, error"):
        reports.basis(25, deviation="std")
    with pytest.raises(InputError, match="n: wanted"):
        reports.basis(0, deviation="sample")


def test_each_interval_says_of_what_and_of_how_many():
    assert reports.interval_basis(25) == "mean [95 % t interval] over 25 runs"
    text = reports.interval_basis(
        8, "pair", level=0.99, words="BCa bootstrap interval", measure="difference"
    )
    assert text == "difference, mean [99 % BCa bootstrap interval] over 8 pairs"
    with pytest.raises(InputError, match="level: wanted"):
        reports.interval_basis(8, level=0)


# --- Tables ---------------------------------------------------------------------------------------


def test_a_table_by_hand():
    text = reports.markdown_table(["system", "error"], [["net", 0.5], ["mixture", "0.1 ± 0.0"]])
    assert text == "| system | error |\n|---|---|\n| net | 0.5 |\n| mixture | 0.1 ± 0.0 |"
    assert reports.markdown_table(["a"], []) == "| a |\n|---|"
    assert reports.markdown_table(["a", "b"], [], padded=True) == "| a | b |\n| --- | --- |"
    rule = reports.markdown_table("abcd", [], align="-lrc").splitlines()[1]
    assert rule == "|---|:--|--:|:-:|"
    assert reports.markdown_table("abc", [], align="r").splitlines()[1] == "|--:|---|---|"


def test_empty_cells_are_of_one_or_two_blanks():
    assert reports.markdown_row([None, "a", "", None]) == "| | a |  | |"


def test_what_would_end_a_cell_is_escaped():
    assert reports.markdown_row(["p(y|x)", "two\nlines", "two\r\nlines", "two\rlines"]) == (
        "| p(y\\|x) | two<br>lines | two<br>lines | two<br>lines |"
    )


def test_a_table_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="rows: wanted 2 cells per row, got 1 in row 1"):
        reports.markdown_table("ab", ["cd", "e"])
    with pytest.raises(InputError, match="head: wanted at least 1"):
        reports.markdown_table([], [])
    with pytest.raises(InputError, match="head: wanted at least 3"):
        reports.markdown_table("ab", [], align="lrc")
    with pytest.raises(InputError, match="align: wanted one of"):
        reports.markdown_table("ab", [], align="lx")


@given(st.lists(st.lists(st.text("ab|\n\r", max_size=5), min_size=3, max_size=3), max_size=4))
def test_every_line_of_a_table_has_as_many_cells_as_the_head(rows):
    lines = reports.markdown_table(["a", "b", "c"], rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}
