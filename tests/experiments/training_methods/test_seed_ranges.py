"""What the claims measure: ranges of passes and seconds, and decisions on ranges."""

import math

import numpy as np
import pytest

from moe_np.experiments.common.decisions import decide
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED, Criterion
from moe_np.experiments.training_methods import seed_ranges
from moe_np.experiments.training_methods.seed_ranges import Range, decide_range
from tests.support.training_runs import everywhere, summarised, with_summary

RULE = Criterion("m", 0.7)
ALONE = [(1, 1)] * 9
EARLY = [(0.0, 0.0)] * 9  # at the level after 10 passes
LATE = [(0.5, 0.0)] * 9  # after 100
NEVER = [(0.9, 0.9)] * 9  # not within the budget of 100


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ratio(a, b):
    result = summarised(**{"one expert": ALONE, "joint": EARLY, "EM": LATE, "CMA-ES": NEVER})
    return seed_ranges.passes_ratio(result, "p", a, b)


def test_a_run_at_the_level_has_one_number_of_passes():
    values = ratio("EM", "joint")
    np.testing.assert_allclose(values.least, np.full(9, math.log(10)))
    np.testing.assert_array_equal(values.least, values.greatest)


def test_a_run_that_never_arrives_needs_its_budget_or_up_to_ten_times_as_much():
    slow = ratio("CMA-ES", "joint")
    np.testing.assert_allclose([slow.least[0], slow.greatest[0]], np.log([10, 100]))
    fast = ratio("joint", "CMA-ES")
    np.testing.assert_allclose([fast.least[0], fast.greatest[0]], np.log([0.01, 0.1]))
    both = ratio("CMA-ES", "CMA-ES")
    np.testing.assert_allclose([both.least[0], both.greatest[0]], np.log([0.1, 10]))


def test_where_neither_arrives_the_sign_is_not_known():
    assert decide_range("c", RULE, ratio("CMA-ES", "joint"))["verdict"] == HOLDS
    assert decide_range("c", RULE, ratio("joint", "CMA-ES"))["verdict"] == NOT_SUPPORTED
    both = decide_range("c", RULE, ratio("CMA-ES", "CMA-ES"))
    assert both["verdict"] == CANNOT_BE_TOLD and both["estimate"] == pytest.approx(0)
    assert both["low"] < 0 < both["high"]


def test_seconds_have_the_range_of_the_timing():
    result = summarised(**{"one expert": ALONE, "joint": EARLY, "EM": LATE})
    result["seconds_range"]["p"] |= {"joint": [0.01, 0.02], "EM": [0.03, 0.06]}
    values = seed_ranges.seconds_ratio(result, "p", "EM", "joint")
    np.testing.assert_allclose([values.least[0], values.greatest[0]], np.log([15, 60]))


def test_gains_are_compared_by_seed():
    gains = {"joint": [0.1, 0.2, 0.3], "alternating": [0.0, 0.5, 0.3]}
    systems = dict.fromkeys(gains, EARLY[:3])
    result = with_summary(everywhere(("p",), systems, gains))
    values = seed_ranges.extra_gain(result, "p", "joint", "alternating")
    np.testing.assert_allclose(values.least, [0.1, -0.3, 0.0])
    np.testing.assert_array_equal(values.least, values.greatest)


def test_a_range_of_no_width_is_decided_as_its_values(rng):
    values = rng.normal(1.5, 0.2, 12)
    assert decide_range("c", RULE, Range(values, values)) == decide("c", RULE, values)


def test_an_interval_goes_from_the_least_to_the_greatest(rng):
    least = rng.normal(1.5, 0.2, 12)
    decision = decide_range("c", RULE, Range(least, least + 1))
    ends = decide("c", RULE, least), decide("c", RULE, least + 1)
    assert (decision["low"], decision["high"]) == (ends[0]["low"], ends[1]["high"])
    assert decision["estimate"] == pytest.approx(least.mean() + 0.5)
    assert decision["detectable"] == pytest.approx(ends[0]["detectable"] + 0.5)
    less = decide_range("c", RULE._replace(direction="less"), Range(least, least + 1))
    assert less["detectable"] == pytest.approx(-decision["detectable"])
