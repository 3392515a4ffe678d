"""Means, intervals, t tests, proportions, effect sizes: by hand, against SciPy, and invariant."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moe_np.base.checks import InputError
from moe_np.experiments.common import statistics

SAMPLES = [
    ([1.0, 2.0, 4.0], [0.5, 2.5, 1.0]),
    ([3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]),
    (np.random.default_rng(0).normal(5, 2, 25), np.random.default_rng(1).normal(4, 1, 25)),
]
UNEQUAL = [
    *SAMPLES,
    ([1.0, 2.0, 4.0], [0.5, 2.5, 1.0, 7.0, 3.25]),
    ([1.0, 2.0], [5.0, 5.5, 6.0, 8.0]),
]
ALTERNATIVES = statistics.ALTERNATIVES
NUMBERS = st.floats(-100, 100).map(lambda x: round(x, 6))
VALUES = st.lists(NUMBERS, min_size=2, max_size=12)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=12).map(
    lambda rows: tuple(np.array(rows).T)
)


def close(a, b, rel=1e-12):
    return a == pytest.approx(b, rel=rel, abs=1e-300)


# --- Mean and spread ------------------------------------------------------------------------------


def test_mean_and_deviation_by_hand():
    summary = statistics.describe([1, 2, 3, 6])
    assert summary[:2] == (3.0, pytest.approx(math.sqrt(14 / 3)))
    assert summary.se == pytest.approx(math.sqrt(14 / 3) / 2)
    population = statistics.describe([1, 2, 3, 6], deviation="population")
    assert population[:3] == (3.0, pytest.approx(math.sqrt(14 / 4)), 4)
    assert population.se == pytest.approx(summary.se)


@given(VALUES)
def test_mean_and_deviation_are_those_of_numpy_to_the_bit(values):
    array = np.array(values)
    summary = statistics.describe(values)
    assert summary[:3] == (array.mean(), array.std(ddof=1), len(values))
    assert summary.se == array.std(ddof=1) / math.sqrt(len(values))
    population = statistics.describe(values, deviation="population")
    assert population[:2] == (np.mean(values), np.std(values))


def test_one_value_has_no_sample_deviation():
    assert statistics.describe([2.5]) == (2.5, None, 1, "sample")
    assert statistics.describe([2.5]).se is None
    assert statistics.describe([2.5], single=0.0)[:2] == (2.5, 0.0)
    assert statistics.describe([2.5], single=0.0).se == 0.0
    assert statistics.describe([2.5], deviation="population") == (2.5, 0.0, 1, "population")
    assert statistics.describe([2.5], deviation="population").se is None


def test_records_are_json_able():
    summary = statistics.describe([1.0, 3.0])
    assert list(summary.record("mean", "sd")) == ["mean", "sd"]
    assert summary.record() == {
        "mean": 2.0,
        "sd": math.sqrt(2),
        "n": 2,
        "deviation": "sample",
        "se": math.sqrt(2) / math.sqrt(2),
    }
    with pytest.raises(InputError, match="keys: wanted one of mean, sd"):
        summary.record("std")
    for record in (
        statistics.describe([1.0]),
        statistics.t_interval([1.0]),
        statistics.paired_t_test([1.0], [2.0]),
        statistics.two_sample_t_test([1.0, 2.0], [2.0, 5.0]),
        statistics.wilson_interval(1, 2),
    ):
        values = record.record()
        assert json.loads(json.dumps(values, allow_nan=False)) == values


@pytest.mark.parametrize(
    "function",
    [
        statistics.describe,
        statistics.t_interval,
        statistics.paired_interval,
        statistics.paired_t_test,
        statistics.d_z,
        lambda v: statistics.two_sample_interval([1.0, 2.0], v),
        lambda v: statistics.two_sample_t_test([1.0, 2.0], v),
        lambda v: statistics.paired_t_test([1.0, 2.0], v),
        lambda v: statistics.cohens_d(v, [1.0, 2.0]),
        lambda v: statistics.hedges_g([1.0, 2.0], v),
    ],
)
@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0], [[1.0, 2.0]], "ab"])
def test_values_are_one_row_of_finite_numbers(function, values):
    with pytest.raises(InputError, match="wanted"):
        function(values)


# --- Pairs ----------------------------------------------------------------------------------------


def test_pairs_are_made_seed_by_seed():
    assert statistics.paired_difference([3, 5], [1, 10]).tolist() == [2.0, -5.0]
    assert statistics.paired_difference({7: 3, 8: 5}, {8: 10, 7: 1}).tolist() == [2.0, -5.0]
    assert statistics.paired_difference({7: 3, 8: 5}, [1, 10]).tolist() == [2.0, -5.0]
    assert statistics.paired_difference([3, 5], 1).tolist() == [2.0, 4.0]
    assert statistics.paired_difference([3, 5]).tolist() == [3.0, 5.0]
    with pytest.raises(InputError, match=r"b: wanted the seeds of a, .*different: 8, 9"):
        statistics.paired_difference({7: 3, 8: 5}, {7: 1, 9: 10})
    with pytest.raises(InputError, match=r"b: wanted values in the order of a"):
        statistics.paired_difference([3, 5], {0: 1, 1: 10})
    with pytest.raises(InputError, match=r"b: wanted one value per value of a, 2, got 1"):
        statistics.paired_difference([3, 5], [1])
    with pytest.raises(InputError, match="b: wanted a finite number"):
        statistics.paired_difference([3, 5], math.nan)


# --- Intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("a,b", SAMPLES)
def test_t_intervals_are_those_of_scipy(a, b, level):
    interval = statistics.t_interval(a, level=level)
    expected = stats.ttest_1samp(a, 0).confidence_interval(level)
    assert close(interval, (np.mean(a), *expected, level), rel=1e-9)
    interval = statistics.paired_interval(a, b, level=level)
    expected = stats.ttest_rel(a, b).confidence_interval(level)
    assert close(interval, (np.mean(np.subtract(a, b)), *expected, level), rel=1e-9)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("a,b", UNEQUAL)
def test_two_sample_intervals_are_those_of_scipy(a, b, pooled):
    interval = statistics.two_sample_interval(a, b, pooled=pooled, level=0.9)
    expected = stats.ttest_ind(a, b, equal_var=pooled).confidence_interval(0.9)
    assert close(interval, (np.mean(a) - np.mean(b), *expected, 0.9), rel=1e-9)


def test_the_t_interval_of_textbooks():
    """Student's sleep data, 1908: the second drug gives 1.58 hours more, interval .70 to 2.46."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    interval = statistics.paired_interval(second, first)
    assert interval == pytest.approx((1.58, 0.7001142, 2.4598858, 0.95), abs=1e-7)
    test = statistics.paired_t_test(second, first)
    assert (test.t, test.df) == (pytest.approx(4.062128, abs=1e-6), 9)
    assert test.p == pytest.approx(0.00283289, abs=1e-8)
    welch = statistics.two_sample_t_test(second, first)
    assert (welch.t, welch.df) == pytest.approx((1.860813, 17.776474), abs=1e-6)
    assert welch.p == pytest.approx(0.07939414, abs=1e-8)


def test_the_t_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    intervals = [statistics.t_interval(rng.normal(3, 2, 5), level=0.8) for _ in range(2000)]
    share = np.mean([i.low <= 3 <= i.high for i in intervals])
    assert abs(share - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 2000)


def test_intervals_without_variance():
    assert statistics.t_interval([2.5]) == (2.5, None, None, 0.95)
    assert statistics.t_interval([0.1] * 3)[1] == statistics.t_interval([0.1] * 3)[2]
    assert statistics.two_sample_interval([1.0], [2.0, 3.0]) == (-1.5, None, None, 0.95)
    assert statistics.two_sample_interval([1.0, 1.0], [2.0, 2.0]) == (-1.0, -1.0, -1.0, 0.95)
    for level in (0, 1, -0.5, 95, math.nan):
        with pytest.raises(InputError, match="level: wanted"):
            statistics.t_interval([1.0, 2.0], level=level)


def test_a_flipped_interval_is_that_of_the_reverse_difference():
    a, b = SAMPLES[1]
    assert close(statistics.paired_interval(a, b).flipped(), statistics.paired_interval(b, a))
    assert statistics.t_interval([2.5]).flipped() == (-2.5, None, None, 0.95)


@given(st.integers(1, 200), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilsons_interval_is_that_of_scipy(n, data, level):
    count = data.draw(st.integers(0, n))
    interval = statistics.wilson_interval(count, n, level=level)
    expected = stats.binomtest(count, n).proportion_ci(level, method="wilson")
    assert interval == pytest.approx((count / n, *expected, level), rel=1e-9, abs=1e-12)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    mirrored = statistics.wilson_interval(n - count, n, level=level)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - interval.high, 1 - interval.low))


def test_wilsons_interval_of_none_and_of_all():
    assert statistics.wilson_interval(0, 10).low == 0.0
    assert statistics.wilson_interval(10, 10).high == 1.0
    assert statistics.wilson_interval(0, 10).high == pytest.approx(0.2775328, abs=1e-7)
    for count, n in ((0, 0), (3, 2), (-1, 2), (0.5, 2)):
        with pytest.raises(InputError, match="wanted a whole number"):
            statistics.wilson_interval(count, n)


# --- t tests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("a,b", SAMPLES)
def test_the_paired_t_test_is_that_of_scipy(a, b, alternative):
    test = statistics.paired_t_test(a, b, alternative=alternative)
    expected = stats.ttest_rel(a, b, alternative=alternative)
    assert close((test.t, test.df, test.p), (expected.statistic, expected.df, expected.pvalue))
    test = statistics.paired_t_test(a, 2.5, alternative=alternative)
    expected = stats.ttest_1samp(a, 2.5, alternative=alternative)
    assert close((test.t, test.df, test.p), (expected.statistic, expected.df, expected.pvalue))


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("a,b", UNEQUAL)
def test_two_sample_t_tests_are_those_of_scipy(a, b, pooled, alternative):
    options = {"alternative": alternative}
    expected = stats.ttest_ind(a, b, equal_var=pooled, **options)
    summaries = statistics.describe(a), statistics.describe(b)
    for pair in ((a, b), summaries):
        test = statistics.two_sample_t_test(*pair, pooled=pooled, **options)
        statistic = test.t, test.df, test.p
        assert close(statistic, (expected.statistic, expected.df, expected.pvalue), rel=1e-10)
    first, second = summaries
    sizes = (*first[:3], *second[:3])
    expected = stats.ttest_ind_from_stats(*sizes, equal_var=pooled, **options)
    assert close((test.t, test.p), expected, rel=1e-10)


@pytest.mark.parametrize("pooled", [False, True])
def test_one_of_two_samples_may_have_no_variance(pooled):
    test = statistics.two_sample_t_test([0.1, 0.2, 0.4], [0.3] * 4, pooled=pooled)
    summaries = *statistics.describe([0.1, 0.2, 0.4])[:3], 0.3, 0.0, 4
    expected = stats.ttest_ind_from_stats(*summaries, equal_var=pooled)
    assert close((test.t, test.p), expected)


def test_tests_without_variance_have_no_p():
    assert statistics.paired_t_test([1.0], [3.0]) == (-2.0, None, 0, None, "two-sided")
    assert statistics.paired_t_test([1.1] * 3, [1.0] * 3)[1:4] == (None, 2, None)
    assert statistics.two_sample_t_test([1.0], [2.0, 4.0])[:4] == (-2.0, None, None, None)
    assert statistics.two_sample_t_test([1.0], [2.0, 4.0], pooled=True).df == 1
    same = statistics.two_sample_t_test([1.0, 1.0], [2.0, 2.0, 2.0], pooled=True)
    assert same[:4] == (-1.0, None, 3, None)
    assert statistics.two_sample_t_test([0.1] * 3, [0.3] * 3).p is None
    assert statistics.paired_t_test([1e-200, 2e-200], 0.0).p is None  # their squares are 0


def test_tests_refuse_what_they_do_not_know():
    with pytest.raises(InputError, match="alternative: wanted one of two-sided, greater, less"):
        statistics.paired_t_test([1.0, 2.0], [2.0, 5.0], alternative="larger")
    with pytest.raises(InputError, match="alternative: wanted one of"):
        statistics.paired_t_test([1.0], [2.0], alternative="larger")
    population = statistics.describe([1.0, 2.0], deviation="population")
    with pytest.raises(InputError, match="a: wanted a Summary with the sample SD"):
        statistics.two_sample_t_test(population, [1.0, 2.0])


@given(PAIRS, st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_paired_statistics_have_their_invariances(pair, scale, random):
    a, b = pair
    test = statistics.paired_t_test(a, b)
    reverse = statistics.paired_t_test(b, a)
    assert reverse.difference == -test.difference
    assert (test.p is None) == (reverse.p is None)
    if test.p is None or np.ptp(a - b) < 1e-3:
        return
    assert close((reverse.t, reverse.p), (-test.t, test.p), rel=1e-9)
    order = list(range(len(a)))
    random.shuffle(order)
    moved = statistics.paired_t_test(scale * a[order] + 3, scale * b[order] + 3)
    assert (moved.t, moved.p) == pytest.approx((test.t, test.p), rel=1e-6, abs=1e-6)
    one_sided = [statistics.paired_t_test(a, b, alternative=side).p for side in ("greater", "less")]
    assert sum(one_sided) == pytest.approx(1)
    assert 2 * min(one_sided) == pytest.approx(test.p)


@given(PAIRS, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_leaves_0_out_where_the_test_is_significant(pair, level):
    interval = statistics.paired_interval(*pair, level=level)
    test = statistics.paired_t_test(*pair)
    assert interval.low <= interval.estimate <= interval.high
    if test.p is not None and abs(test.p - (1 - level)) > 1e-6:
        assert (interval.low > 0 or interval.high < 0) == (test.p < 1 - level)


# --- The size of an effect ------------------------------------------------------------------------


def test_effect_sizes_by_hand():
    a, b = [2.0, 4.0, 6.0], [1.0, 3.0, 5.0, 7.0]  # variances 4 and 20 / 3, pooled 28 / 5
    assert statistics.cohens_d(a, b) == 0
    assert statistics.cohens_d([5.0, 7.0, 9.0], b) == pytest.approx(3 / math.sqrt(28 / 5))
    # J(5) = Γ(2.5) / (√2.5 Γ(2)) = (3 √π / 4) / √2.5
    correction = 0.75 * math.sqrt(math.pi) / math.sqrt(2.5)
    expected = correction * 3 / math.sqrt(28 / 5)
    assert statistics.hedges_g([5.0, 7.0, 9.0], b) == pytest.approx(expected)
    assert statistics.d_z([1.0, 2.0, 6.0]) == pytest.approx(3 / math.sqrt(7))


@pytest.mark.parametrize("a,b", SAMPLES)
def test_effect_sizes_are_t_in_other_units(a, b):
    n = len(a)
    test = statistics.two_sample_t_test(a, b, pooled=True)
    assert statistics.cohens_d(a, b) == pytest.approx(test.t * math.sqrt(2 / n))
    assert statistics.d_z(a, b) == pytest.approx(statistics.paired_t_test(a, b).t / math.sqrt(n))
    about = 1 - 3 / (4 * (2 * n - 2) - 1)  # Hedges' approximation of J
    assert statistics.hedges_g(a, b) == pytest.approx(about * statistics.cohens_d(a, b), rel=0.01)


def test_hedges_g_has_no_bias():
    rng = np.random.default_rng(3)
    draws = [(rng.normal(1, 1, 5), rng.normal(0, 1, 5)) for _ in range(4000)]
    g, d = (
        np.mean([effect(a, b) for a, b in draws])
        for effect in (statistics.hedges_g, statistics.cohens_d)
    )
    assert abs(g - 1) < 0.05 < d - 1


def test_effect_sizes_without_variance_are_not_defined():
    assert statistics.cohens_d([1.0], [2.0, 3.0]) is None
    assert statistics.cohens_d([0.1] * 3, [0.3] * 3) is None
    assert statistics.hedges_g([1.0, 1.0], [2.0, 2.0]) is None
    assert statistics.d_z([1.0]) is None
    assert statistics.d_z([0.1] * 3, [0.3] * 3) is None
