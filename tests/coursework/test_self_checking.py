"""The check at the end of a lesson: which case, which inputs, and the progress that it keeps."""

import numpy as np
import pytest

from moe_np.coursework import lesson_progress, self_check
from moe_np.coursework.self_checking import described


def double(x, factor):
    return factor * x


def wrong_for_negative(x, factor):
    return factor * np.abs(x)


def cases(rng):
    yield np.array([1.0, 2.0]), 3
    yield np.array([[1.0, -2.0], [0.5, 4.0]]), 2


def test_a_right_function_is_one_line(capsys):
    assert self_check(double, double, cases)
    assert capsys.readouterr().out == "double: right\n"


def test_the_first_wrong_case_is_named_with_its_inputs(capsys):
    assert not self_check(wrong_for_negative, double, cases, name="product")
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("product: not yet. Case 2 of 2: the result at (0, 1): wanted -4, got 4")
    text = "\n".join(rest)
    assert "x = array (2, 2)" in text and "-2. " in text and "factor = 2" in text


def test_a_function_among_the_inputs_is_shown_by_its_source(capsys):
    def mean_of_all(logits):
        return logits.mean()

    assert not self_check(
        lambda loss: 0, lambda loss: 1, lambda rng: [(mean_of_all,), (max,)], name="is_right"
    )
    out = capsys.readouterr().out
    assert "Case 1 of 2" in out and "return logits.mean()" in out
    assert described(max) == "max"


def test_a_long_input_is_shortened():
    assert len(described(np.arange(10_000.0))) < 300
    assert described("a" * 5000).endswith(" ...")


def test_a_notebook_shows_the_printed_lines_only(capsys):
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    for answer, passed in ((double, True), (wrong_for_negative, False)):
        verdict = self_check(answer, double, cases)
        capsys.readouterr()
        assert bool(verdict) is passed and formatter.format(verdict) == ({}, {})
        assert capsys.readouterr().out == ""


def test_tries_are_counted_where_there_is_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    self_check(double, double, cases)
    assert not list(tmp_path.iterdir()), "nothing is written where there is no file"
    (tmp_path / lesson_progress.FILE).write_text("{}", encoding="utf-8")
    self_check(wrong_for_negative, double, cases, name="f")
    self_check(double, double, cases, name="f")
    self_check(wrong_for_negative, double, cases, name="f")
    kept = lesson_progress.read()["checks"]["f"]
    assert kept["tries"] == 3 and kept["passed"], "once right it stays right"
