"""Several claims at once against statsmodels, and verdicts from intervals by hand."""

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from moe_np.base.checks import InputError
from moe_np.experiments.common import statistics, verdicts
from moe_np.experiments.common.statistics import Interval
from moe_np.experiments.common.verdicts import Criterion

P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.05]), min_size=1, max_size=12)


# --- Several claims at once -----------------------------------------------------------------------


@given(P_VALUES)
def test_holms_correction_is_that_of_statsmodels(p):
    with mock.patch("gc.collect"):  # which statsmodels calls each time, and which takes long here
        _, adjusted, *_ = multipletests(p, method="holm")
    assert verdicts.holm(p) == pytest.approx(adjusted, rel=1e-12)


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holms_correction_knows_no_order_and_lowers_nothing(p, random):
    adjusted = verdicts.holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    order = list(range(len(p)))
    random.shuffle(order)
    assert verdicts.holm([p[i] for i in order]) == [adjusted[i] for i in order]


def test_holms_correction_by_hand():
    assert verdicts.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert verdicts.holm([0.01, None, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06)]
    assert verdicts.holm([0.6, 0.7]) == [1, 1]
    assert verdicts.holm([]) == []
    assert verdicts.holm([None]) == [None]
    for value in (1.5, -0.1, math.nan):
        with pytest.raises(InputError, match=r"p\[1\]: wanted"):
            verdicts.holm([0.5, value])


def test_true_null_hypotheses_are_rarely_rejected_by_holm():
    """Of 2,000 tables of 15 tests without any effect; without a correction it is about half."""
    draws = np.random.default_rng(0).uniform(size=(2000, 15))
    rejected = np.mean([min(verdicts.holm(p)) < 0.05 for p in draws])
    assert rejected < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert np.mean(draws.min(axis=1) < 0.05) > 0.5


def test_bonferronis_level_by_hand():
    assert verdicts.bonferroni_level(0.95, 1) == pytest.approx(0.95)
    assert verdicts.bonferroni_level(0.95, 10) == pytest.approx(0.995)
    with pytest.raises(InputError, match="level: wanted"):
        verdicts.bonferroni_level(1, 3)
    with pytest.raises(InputError, match="m: wanted"):
        verdicts.bonferroni_level(0.95, 0)


# --- Verdicts -------------------------------------------------------------------------------------

CASES = [
    (0.1, 0.2, "holds"),
    (0.1, 0.11, "holds"),
    (-0.3, 0.05, "not supported"),
    (-0.9, -0.5, "not supported"),
    (0.0, 0.1, "not supported"),
    (0.05, 0.3, "cannot be told"),
    (-0.3, 0.3, "cannot be told"),
    (0.08, 0.2, "cannot be told"),
]


@pytest.mark.parametrize("low,high,expected", CASES)
def test_verdicts_by_hand(low, high, expected):
    interval = Interval((low + high) / 2, low, high, 0.95)
    criterion = Criterion("gain", 0.0999 if low == 0.1 else 0.1)
    assert verdicts.verdict(criterion, interval) == expected
    reverse = criterion._replace(direction="less")
    assert verdicts.verdict(reverse, interval.flipped()) == expected


def test_the_smallest_difference_itself_is_not_beyond_it():
    assert verdicts.verdict(Criterion("gain", 0.1), Interval(0.2, 0.1, 0.3, 0.95)) == (
        "cannot be told"
    )
    assert verdicts.verdict(Criterion("gain", 0), Interval(0.0, 0.0, 0.0, 0.95)) == (
        "not supported"
    )


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0, 5), st.floats(0, 2))
def test_a_claim_and_its_reverse_never_hold_both(estimate, below, beyond, smallest):
    interval = Interval(estimate, estimate - below, estimate + beyond, 0.95)
    claim = Criterion("gain", smallest)
    pair = {verdicts.verdict(c, interval) for c in (claim, claim._replace(direction="less"))}
    assert pair <= set(verdicts.VERDICTS)
    assert pair != {"holds"} and pair != {"holds", "cannot be told"}


def test_verdicts_are_wrong_as_rarely_as_they_say():
    """True differences just below and just above the smallest of interest, 8 seeds."""
    rng, criterion = np.random.default_rng(1), Criterion("gain", 0.5)
    words = [
        [
            verdicts.verdict(criterion, statistics.t_interval(rng.normal(true, 1, 8)))
            for _ in range(2000)
        ]
        for true in (0.5 - 1e-9, 0.5 + 1e-9)
    ]
    bound = 0.025 + 3 * math.sqrt(0.025 * 0.975 / 2000)
    assert 0.01 < np.mean(np.array(words[0]) == "holds") < bound
    assert 0.01 < np.mean(np.array(words[1]) == "not supported") < bound


def test_one_run_tells_nothing():
    interval = statistics.paired_interval([5.0], [1.0])
    assert verdicts.verdict(Criterion("gain", 0.1), interval) == "cannot be told"
    criterion = Criterion("gain", 0.1, "less")
    assert verdicts.verdict(criterion, interval) == "cannot be told"


def test_a_criterion_is_a_sentence_in_a_report():
    assert Criterion("gain in nats per case", 0.1).text() == (
        "The claim holds if the whole 95 % interval of the gain in nats per case lies above 0.1; "
        "it is not supported if no part does; in between it cannot be told."
    )
    text = Criterion("error", 0.25, "less", verdicts.bonferroni_level(0.95, 10)).text()
    assert "the whole 99.5 % interval of the error lies below -0.25;" in text
    assert "lies below 0;" in Criterion("error", 0, "less").text()


def test_criteria_that_decide_nothing():
    interval = Interval(0.2, 0.1, 0.3, 0.95)
    with pytest.raises(InputError, match="smallest: wanted"):
        verdicts.verdict(Criterion("gain", -0.1), interval)
    with pytest.raises(InputError, match="direction: wanted one of greater, less"):
        verdicts.verdict(Criterion("gain", 0.1, "two-sided"), interval)
    with pytest.raises(InputError, match=r"interval: wanted the level 0\.99, got 0\.95"):
        verdicts.verdict(Criterion("gain", 0.1, level=0.99), interval)


# --- On which side of 0 ---------------------------------------------------------------------------

WORDS = {"negative": "less", "positive": "more", "neither": "cannot be told"}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-2, -1, "less"),
        (1, 2, "more"),
        (-1, 1, "cannot be told"),
        (-1, 0, "cannot be told"),
        (0, 1, "cannot be told"),
        (None, None, "one seed cannot tell"),
    ],
)
def test_words_say_on_which_side_of_0_an_interval_lies(low, high, words):
    difference = {"low": low, "high": high}
    assert verdicts.side_of_0(difference, **WORDS) == words
    assert verdicts.is_below_0(difference) == (words == "less")


def test_what_was_not_measured_is_not_below_0():
    assert not verdicts.is_below_0(None)
    single = statistics.t_interval([-1.0]).record()
    assert verdicts.side_of_0(single, **WORDS, single="nothing") == "nothing"
