"""The bootstrap and permutation tests: against SciPy, by hand, and at the level that they state."""

import inspect
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moe_np.base.checks import InputError
from moe_np.experiments.common import resampling, statistics

RNG = np.random.default_rng(0)
SKEWED = RNG.exponential(size=12)
PAIR = SKEWED, SKEWED * RNG.uniform(0.5, 1.2, 12)
SMALL = st.lists(st.integers(-5, 5), min_size=1, max_size=6)


def rng(seed=0):
    return np.random.default_rng(seed)


def generator(seed=0):
    """The Generator under the name that it has in SciPy: rng from version 1.15 on."""
    names = inspect.signature(stats.bootstrap).parameters
    return {"rng" if "rng" in names else "random_state": rng(seed)}


def ratio(a, b):
    return a.mean(axis=-1) / b.mean(axis=-1)


# --- The bootstrap --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_the_bootstrap_is_that_of_scipy(method, level, statistic):
    options = {"statistic": lambda v: statistic(v, axis=-1), "method": method, "level": level}
    interval = resampling.bootstrap_interval(SKEWED, rng(), resamples=2000, **options)
    expected = stats.bootstrap(
        (SKEWED,),
        statistic,
        n_resamples=2000,
        confidence_level=level,
        method=method,
        **generator(),
    ).confidence_interval
    assert interval == pytest.approx((statistic(SKEWED), *expected, level), rel=1e-12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("statistic", [resampling.mean_difference, ratio])
def test_the_paired_bootstrap_is_that_of_scipy(method, statistic):
    interval = resampling.paired_bootstrap_interval(
        *PAIR, rng(1), statistic=statistic, method=method, resamples=3000
    )
    expected = stats.bootstrap(
        PAIR,
        lambda a, b, axis: statistic(a, b),
        n_resamples=3000,
        method=method,
        paired=True,
        vectorized=True,
        **generator(1),
    ).confidence_interval
    assert interval == pytest.approx((statistic(*PAIR), *expected, 0.95), rel=1e-12)


def test_the_paired_bootstrap_keeps_pairs_together():
    difference = statistics.paired_difference(*PAIR)
    paired = resampling.paired_bootstrap_interval(*PAIR, rng(2))
    assert paired == pytest.approx(resampling.bootstrap_interval(difference, rng(2)))
    seeds = range(len(difference))
    by_seed = [dict(zip(seeds, values, strict=True)) for values in PAIR]
    by_seed[1] = dict(reversed(by_seed[1].items()))
    assert resampling.paired_bootstrap_interval(*by_seed, rng(2)) == paired


def test_the_same_seed_gives_the_same_bits():
    first, second, third = (resampling.bootstrap_interval(SKEWED, rng(s)) for s in (3, 3, 4))
    assert first == second
    assert first != third


def test_blocks_do_not_change_the_bits(monkeypatch):
    whole = [
        resampling.bootstrap_interval(SKEWED, rng(), resamples=1000),
        resampling.paired_permutation_test(np.tile(SKEWED, 2), 0.9, rng=rng(), resamples=1000),
        resampling.two_sample_permutation_test(SKEWED, PAIR[1], rng=rng(), resamples=1000),
    ]
    monkeypatch.setattr(resampling, "BLOCK", 101)
    assert whole == [
        resampling.bootstrap_interval(SKEWED, rng(), resamples=1000),
        resampling.paired_permutation_test(np.tile(SKEWED, 2), 0.9, rng=rng(), resamples=1000),
        resampling.two_sample_permutation_test(SKEWED, PAIR[1], rng=rng(), resamples=1000),
    ]


def test_bca_is_nearer_to_its_level_than_the_percentiles_for_skewed_values():
    draws, held = rng(5).exponential(size=(400, 15)), {}
    for method in ("percentile", "bca"):
        intervals = [
            resampling.bootstrap_interval(
                values, rng(i), method=method, resamples=400, statistic=lambda v: v.var(axis=-1)
            )
            for i, values in enumerate(draws)
        ]
        held[method] = np.mean([i.low <= 1 <= i.high for i in intervals])
    assert held["percentile"] + 0.02 < held["bca"] < 0.95


def test_the_bootstrap_of_values_without_variance():
    for method in ("percentile", "bca"):
        assert resampling.bootstrap_interval([2.0], rng(), method=method)[1:3] == (None, None)
        interval = resampling.bootstrap_interval([2.0] * 4, rng(), method=method)
        assert interval == (2.0, 2.0, 2.0, 0.95)


@given(st.floats(-10, 10), st.floats(0.1, 10))
def test_the_bootstrap_moves_with_the_values(shift, scale):
    base = resampling.bootstrap_interval(SKEWED, rng(), resamples=200)
    moved = resampling.bootstrap_interval(scale * SKEWED + shift, rng(), resamples=200)
    expected = [scale * bound + shift for bound in base[:3]]
    assert moved[:3] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_bootstrap_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        resampling.bootstrap_interval(SKEWED, 0)
    with pytest.raises(InputError, match="method: wanted one of percentile, bca"):
        resampling.bootstrap_interval(SKEWED, rng(), method="basic")
    with pytest.raises(InputError, match="resamples: wanted"):
        resampling.bootstrap_interval(SKEWED, rng(), resamples=10)
    with pytest.raises(InputError, match="method: BCa is not defined here"):
        resampling.bootstrap_interval(
            SKEWED, rng(), statistic=lambda v: -abs(v.mean(axis=-1) - SKEWED.mean())
        )
    with pytest.raises(InputError, match="statistic: wanted one finite number per resample"):
        resampling.bootstrap_interval(SKEWED, rng(), statistic=lambda v: v.mean())
    with pytest.raises(InputError, match="statistic: wanted one finite number per resample"):
        resampling.bootstrap_interval(SKEWED, rng(), statistic=lambda v: v.mean(axis=-1) * np.inf)
    for values in ([], [math.nan, 1.0], [[1.0, 2.0]]):
        with pytest.raises(InputError, match="values: wanted"):
            resampling.bootstrap_interval(values, rng())
    with pytest.raises(InputError, match="b: wanted one value per value of a"):
        resampling.paired_bootstrap_interval([1.0, 2.0], [1.0], rng())


# --- Permutation tests ----------------------------------------------------------------------------


@pytest.mark.parametrize("alternative", statistics.ALTERNATIVES)
def test_exact_tests_are_those_of_scipy(alternative):
    a, b = (values[:7] for values in PAIR)
    options = {"n_resamples": np.inf, "alternative": alternative, "vectorized": True}
    test = resampling.paired_permutation_test(a, b, alternative=alternative)
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", **options
    )
    assert (test.difference, test.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (test.permutations, test.exact) == (2**7, True)
    test = resampling.two_sample_permutation_test(a, b[:4], alternative=alternative)
    expected = stats.permutation_test(
        (a, b[:4]), lambda x, y, axis: x.mean(axis) - y.mean(axis), **options
    )
    assert (test.difference, test.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (test.permutations, test.exact) == (math.comb(11, 4), True)


@given(SMALL)
def test_the_sign_flip_test_counts_sign_patterns(values):
    """Integers have many ties, and all of them count."""
    sums = [np.dot(signs, values) for signs in itertools.product((1, -1), repeat=len(values))]
    share = {
        "greater": np.mean([s >= sum(values) for s in sums]),
        "less": np.mean([s <= sum(values) for s in sums]),
    }
    share["two-sided"] = min(1, 2 * min(share.values()))
    for alternative, p in share.items():
        test = resampling.paired_permutation_test(values, alternative=alternative)
        assert test.p == p


@given(SMALL, SMALL, st.integers(-1000, 1000))
def test_the_two_sample_test_counts_choices(a, b, shift):
    values = np.array(a + b)
    differences = [
        len(b) * values[list(chosen)].sum() - len(a) * np.delete(values, chosen).sum()
        for chosen in itertools.combinations(range(len(values)), len(a))
    ]
    observed = len(b) * sum(a) - len(a) * sum(b)
    moved = [0.1 * (np.array(v) + shift) for v in (a, b)]
    p = resampling.two_sample_permutation_test(*moved, alternative="greater").p
    assert p == np.mean([d >= observed for d in differences])
    assert resampling.two_sample_permutation_test(*moved[::-1], alternative="less").p == p


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8))
def test_two_sided_p_values_do_not_know_which_is_which(values):
    test = resampling.paired_permutation_test(values, 1.0)
    reverse = resampling.paired_permutation_test(2 - np.array(values), 1.0)
    assert test.p == reverse.p
    assert 2 / 2 ** len(values) <= test.p <= 1


def test_the_smallest_p_of_differences_that_are_all_the_same():
    """Where the t test has no variance the sign-flip test still tells them from chance."""
    test = resampling.paired_permutation_test([0.3] * 8, [0.1] * 8)
    assert test.p == 2 / 2**8
    assert resampling.paired_permutation_test([0.0] * 8).p == 1
    assert resampling.paired_permutation_test([3.0]).p == 1
    assert resampling.two_sample_permutation_test([1.0] * 3, [1.0] * 4).p == 1
    assert resampling.two_sample_permutation_test([1.0], [2.0]).p == 1


@pytest.mark.parametrize("alternative", statistics.ALTERNATIVES)
def test_random_permutations_come_near_to_all(monkeypatch, alternative):
    a, b = PAIR
    options = {"alternative": alternative, "resamples": 20000}
    for test in (
        resampling.paired_permutation_test,
        resampling.two_sample_permutation_test,
    ):
        exact = test(a[:8], b[:8], alternative=alternative)
        with monkeypatch.context() as patch:
            patch.setattr(resampling, "EXACT", 1)
            drawn = test(a[:8], b[:8], rng=rng(), **options)
            assert drawn == test(a[:8], b[:8], rng=rng(), **options)
        assert (drawn.exact, drawn.permutations) == (False, 20000)
        assert abs(drawn.p - exact.p) < 8 * math.sqrt(exact.p * (1 - exact.p) / 20000)


def test_random_permutations_never_give_p_0():
    values = np.arange(1.0, 31.0)
    test = resampling.paired_permutation_test(values, rng=rng(), alternative="greater")
    assert test.p == 1 / 10000
    test = resampling.two_sample_permutation_test(values, values + 100, rng=rng(), resamples=999)
    assert test.p == 2 / 1000


def test_permutation_tests_are_as_often_significant_as_they_say():
    draws = rng(7).standard_t(3, size=(1000, 2, 8))
    for test in (resampling.paired_permutation_test, resampling.two_sample_permutation_test):
        share = np.mean([test(a, b).p <= 0.0625 for a, b in draws[:, :, :5]])
        assert share < 0.0625 + 3 * math.sqrt(0.0625 * 0.9375 / 1000)


def test_permutation_tests_refuse_what_they_cannot_do():
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        resampling.paired_permutation_test(np.arange(25.0))
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        resampling.two_sample_permutation_test(np.arange(25.0), np.arange(25.0))
    with pytest.raises(InputError, match="alternative: wanted one of"):
        resampling.paired_permutation_test([1.0], alternative="larger")
    for values in ([], [math.nan], [[1.0]]):
        with pytest.raises(InputError, match="a: wanted"):
            resampling.paired_permutation_test(values)
        with pytest.raises(InputError, match="b: wanted"):
            resampling.two_sample_permutation_test([1.0], values)
