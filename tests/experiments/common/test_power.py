"""The power of t tests: against statsmodels, and against tests of drawn values."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower, TTestPower

from moe_np.base.checks import InputError
from moe_np.experiments.common import power, statistics

SIDES = {"two-sided": "two-sided", "greater": "larger", "less": "smaller"}  # here -> in statsmodels


@pytest.mark.parametrize("alternative", SIDES)
@pytest.mark.parametrize("n", [2, 5, 25, 40])
@pytest.mark.parametrize("effect", [-0.7, 0.0, 0.2, 1.0])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_power_is_that_of_statsmodels(alternative, n, effect, alpha):
    computed = power.power(effect, n, alpha=alpha, alternative=alternative)
    expected = TTestPower().power(effect, n, alpha, alternative=SIDES[alternative])
    assert computed == pytest.approx(expected, abs=2e-5)  # as near as older versions of SciPy come
    computed = power.power(effect, n, alpha=alpha, alternative=alternative, paired=False)
    expected = TTestIndPower().power(effect, n, alpha, alternative=SIDES[alternative])
    assert computed == pytest.approx(expected, abs=2e-5)  # as near as older versions of SciPy come


@pytest.mark.parametrize("n", [3, 5, 25, 200])
@pytest.mark.parametrize("two_sided", [True, False])
def test_the_smallest_effect_is_that_of_statsmodels(n, two_sided):
    options = {"alternative": "two-sided" if two_sided else "larger", "alpha": 0.05, "power": 0.8}
    computed = power.smallest_effect(n, two_sided=two_sided)
    assert computed == pytest.approx(TTestPower().solve_power(nobs=n, **options), rel=1e-5)
    computed = power.smallest_effect(n, two_sided=two_sided, paired=False)
    assert computed == pytest.approx(TTestIndPower().solve_power(nobs1=n, **options), rel=1e-5)


@pytest.mark.parametrize("effect", [0.1, 0.5, 2.0])
def test_the_runs_needed_are_those_of_statsmodels(effect):
    options = {"effect_size": effect, "alpha": 0.05, "power": 0.9}
    computed = power.runs_needed(-3 * effect, 3, target=0.9)
    assert computed == math.ceil(TTestPower().solve_power(**options))
    computed = power.runs_needed(3 * effect, 3, target=0.9, paired=False)
    assert computed == math.ceil(TTestIndPower().solve_power(**options))


def test_numbers_of_textbooks():
    """Cohen 1988, table 2.4.1: a medium effect, .5, needs 64 per group, and a large one, .8, 26."""
    assert power.runs_needed(0.5, 1, paired=False) == 64
    assert power.runs_needed(0.8, 1, paired=False) == 26
    assert power.runs_needed(0.5, 1) == 34
    assert power.smallest_effect(25) == pytest.approx(0.584, abs=5e-4)


def test_tests_of_drawn_values_are_as_often_significant():
    rng, n, effect = np.random.default_rng(0), 8, 1.0
    draws = rng.normal(effect, 1, size=(2000, n))
    share = np.mean([statistics.paired_t_test(values).p < 0.05 for values in draws])
    expected = power.power(effect, n)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 2000)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("n", [2, 3, 10, 25, 1000])
def test_the_three_questions_have_one_answer(n, paired):
    effect = power.smallest_effect(n, paired=paired, target=0.7, alpha=0.01)
    options = {"paired": paired, "alpha": 0.01}
    assert power.power(effect, n, **options) == pytest.approx(0.7, rel=1e-6)
    assert power.runs_needed(1.0001 * effect, 1, target=0.7, **options) == n
    difference = power.smallest_difference(n, 2.5, target=0.7, **options)
    assert difference == pytest.approx(2.5 * effect)


def test_the_power_rises_with_runs_and_effect_and_is_alpha_without_one():
    by_runs = [power.power(0.5, n) for n in range(2, 60)]
    by_effect = [power.power(effect, 5) for effect in np.linspace(0, 60, 40)]
    assert np.all(np.diff(by_runs) > 0)
    assert np.all(np.diff(by_effect) >= 0)
    assert by_effect[-1] == 1
    assert power.power(0, 7) == pytest.approx(0.05)
    assert power.power(0, 7, alternative="less") == pytest.approx(0.05)
    assert power.power(-0.4, 7) == pytest.approx(power.power(0.4, 7))
    assert power.smallest_difference(7, 0) == 0


@pytest.mark.parametrize(
    "call,name",
    [
        (lambda: power.power(0.5, 1), "n"),
        (lambda: power.power(math.nan, 5), "effect"),
        (lambda: power.power(0.5, 5, alpha=1), "alpha"),
        (lambda: power.power(0.5, 5, alternative="larger"), "alternative"),
        (lambda: power.smallest_effect(5, target=0.05), "target"),
        (lambda: power.smallest_effect(5, target=1), "target"),
        (lambda: power.smallest_effect(1), "n"),
        (lambda: power.smallest_difference(5, -1), "sd"),
        (lambda: power.runs_needed(0, 1), "difference"),
        (lambda: power.runs_needed(0.5, 0), "sd"),
        (lambda: power.runs_needed(0.5, 1, maximum=33), "difference"),
    ],
)
def test_questions_without_an_answer(call, name):
    with pytest.raises(InputError, match=f"^{name}: wanted"):
        call()


def test_the_maximum_itself_may_be_the_answer():
    assert power.runs_needed(0.5, 1, maximum=34) == 34
    assert power.runs_needed(100, 1) == 2
