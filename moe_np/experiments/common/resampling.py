"""Intervals and tests that assume no distribution: the bootstrap, and permutation tests.

    bootstrap_interval, paired_bootstrap_interval             percentile and BCa
    paired_permutation_test, two_sample_permutation_test      exact, or Monte Carlo for many runs

Random numbers come from a Generator that is passed in: the same seed gives the same bits.
"""

import itertools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice, generator, integer
from moe_np.base.types import Array, Rng
from moe_np.experiments.common.statistics import (
    ALTERNATIVES,
    BySeed,
    Interval,
    Values,
    checked_level,
    paired_difference,
    pairs,
    sample,
)

EXACT = 2**16  # up to here all permutations are looked at, beyond it a random sample
RESAMPLES = 9999  # together with what was observed, 10,000
BLOCK = 2**20  # numbers that are resampled at a time
SLACK = 1e-9  # of the largest value: differences that only rounding tells apart are ties

Statistic = Callable[..., Array]  # of samples (..., n), over their last axis -> (...)


def mean(values: Annotated[Array, "..., n"]) -> Array:
    """The mean over the last axis."""
    return values.mean(axis=-1)


def mean_difference(a: Annotated[Array, "..., n"], b: Annotated[Array, "..., n"]) -> Array:
    """The mean of a − b over the last axis."""
    return (a - b).mean(axis=-1)


# --- The bootstrap --------------------------------------------------------------------------------


def bootstrap_interval(
    values: Values,
    rng: Rng,
    *,
    statistic: Statistic = mean,
    level: float = 0.95,
    method: str = "bca",
    resamples: int = RESAMPLES,
) -> Interval:
    """The bootstrap interval of a statistic of n values, each resample n draws with replacement.

    statistic   a function of values (..., n) over their last axis
    method      "percentile": the quantiles (1 ± level) / 2 of the resampled statistics
                (Efron 1979). "bca": bias corrected and accelerated, the quantiles
                Φ(z0 + (z0 + z) / (1 − a (z0 + z))) with z = Φ⁻¹((1 ± level) / 2), z0 the bias
                and a the acceleration (Efron 1987; Efron and Tibshirani 1993, eqs. 14.9 to 14.15)

    With less than some ten values both are too narrow, and a t interval is the better choice. One
    value has no bounds (None). Values that are all the same have an interval of width 0.
    Raises InputError where the statistic is not finite in a resample, and where BCa is not defined
    because all resampled statistics lie on one side of the observed one.
    """
    return _bootstrap((sample("values", values),), rng, statistic, level, method, resamples)


def paired_bootstrap_interval(
    a: Values | BySeed,
    b: Values | BySeed,
    rng: Rng,
    *,
    statistic: Statistic = mean_difference,
    level: float = 0.95,
    method: str = "bca",
    resamples: int = RESAMPLES,
) -> Interval:
    """The bootstrap interval of a statistic of a and b, whose pairs (one per seed) are resampled.

    statistic   a function of a (..., n) and b (..., n) over their last axis; the mean difference,
                or for example the ratio of the means

    The rest as in `bootstrap_interval`.
    """
    return _bootstrap(pairs(a, b), rng, statistic, level, method, resamples)


def _bootstrap(samples, rng, statistic, level, method, resamples):
    level = checked_level(level)
    choice("method", method, ("percentile", "bca"))
    resamples = integer("resamples", resamples, minimum=100)
    rng = generator("rng", rng)
    n = len(samples[0])
    estimate = float(statistic(*samples))
    if n == 1:
        return Interval(estimate, None, None, level)
    draws = (rng.integers(0, n, (rows, n)) for rows in _blocks(resamples, n))
    resampled = _statistics(samples, statistic, draws)
    if resampled.shape != (resamples,) or not np.isfinite([*resampled, estimate]).all():
        raise InputError("statistic: wanted one finite number per resample, over the last axis")
    quantiles = np.array([1 - level, 1 + level]) / 2
    if method == "bca" and (resampled != resampled[0]).any():
        quantiles = _bca_quantiles(samples, statistic, quantiles, resampled, estimate)
    low, high = np.quantile(resampled, quantiles)
    return Interval(estimate, float(low), float(high), level)


def _bca_quantiles(samples, statistic, quantiles, resampled, estimate):
    """The quantiles of BCa: z0 from the share of resamples below the estimate (ties by halves), a
    from the statistic with each of the n cases left out, a = Σ u³ / (6 (Σ u²)^1.5).
    """
    from scipy import stats

    share = ((resampled < estimate).mean() + (resampled <= estimate).mean()) / 2
    if not 0 < share < 1:
        raise InputError("method: BCa is not defined here; take percentile, or more resamples")
    z0 = stats.norm.ppf(share)
    left_out = _statistics(samples, statistic, _all_but_one(len(samples[0])))
    u = left_out.mean() - left_out
    acceleration = (u**3).sum() / (6 * (u**2).sum() ** 1.5) if u.any() else 0.0
    z = z0 + stats.norm.ppf(quantiles)
    return stats.norm.cdf(z0 + z / (1 - acceleration * z))


def _statistics(samples, statistic, indices):
    """The statistic of the cases that each row of the index arrays (rows, n) picks."""
    blocks = [statistic(*(values[index] for values in samples)) for index in indices]
    return np.concatenate([np.atleast_1d(block) for block in blocks])


def _all_but_one(n):
    """Index arrays, in blocks, whose row i holds all of 0 ... n − 1 except i."""
    columns = np.arange(n - 1)
    first = 0
    for rows in _blocks(n, n):
        yield columns + (columns >= np.arange(first, first + rows)[:, None])
        first += rows


def _blocks(rows, n):
    """How many of all the rows of n numbers are computed at a time, block after block."""
    size = max(1, BLOCK // n)
    for first in range(0, rows, size):
        yield min(size, rows - first)


# --- Permutation tests ----------------------------------------------------------------------------


class PermutationTest(NamedTuple):
    """A permutation test: the difference of means, p, and how many permutations it is from."""

    difference: float
    p: float
    permutations: int
    exact: bool  # all permutations, and not a random sample
    alternative: str

    def record(self) -> dict[str, Any]:
        """A dict that is JSON-able."""
        return self._asdict()


def paired_permutation_test(
    a: Values | BySeed,
    b: Values | BySeed | float = 0.0,
    *,
    rng: Rng | None = None,
    alternative: str = "two-sided",
    resamples: int = RESAMPLES,
) -> PermutationTest:
    """The sign-flip test of a paired difference (Fisher 1935, section 21): if a and b are alike,
    the difference of each seed has either sign with the same chance.

    p is the share of the 2ⁿ sign patterns whose mean difference is at least as large as the
    observed one (at least as small: "less"); two-sided: twice the smaller share, at most 1. Up to
    16 seeds all patterns are looked at, so that p ≥ 2 / 2ⁿ; with more seeds `resamples` random ones
    are, and p = (1 + count) / (1 + resamples) (Phipson and Smyth 2010), for which `rng` is needed.
    """
    values = paired_difference(a, b)
    n = len(values)
    exact = 2**n <= EXACT
    if exact:
        negative = np.arange(2**n)[:, None] >> np.arange(n) & 1
        permuted = (1 - 2 * negative) @ values / n
    else:
        rng = generator("rng", rng)
        resamples = integer("resamples", resamples, minimum=100)
        permuted = [
            (1 - 2 * rng.integers(0, 2, (rows, n))) @ values / n for rows in _blocks(resamples, n)
        ]
        permuted = np.concatenate(permuted)
    slack = SLACK * np.abs(values).max()
    return _permutation_test(values.mean(), permuted, slack, exact, alternative)


def two_sample_permutation_test(
    a: Values,
    b: Values,
    *,
    rng: Rng | None = None,
    alternative: str = "two-sided",
    resamples: int = RESAMPLES,
) -> PermutationTest:
    """The permutation test of two means from different seeds (Pitman 1937): if a and b are alike,
    any n_a of all values may as well have been those of a.

    p as in `paired_permutation_test`, over all C(n_a + n_b, n_a) choices if these are at most
    EXACT, otherwise over `resamples` random ones.
    """
    a, b = sample("a", a), sample("b", b)
    n_a, n_b = len(a), len(b)
    values = np.concatenate([a, b])
    values = values - values.mean()
    exact = math.comb(n_a + n_b, n_a) <= EXACT
    if exact:
        choices = itertools.combinations(range(n_a + n_b), n_a)
        sums = values[np.array(list(choices))].sum(axis=1)
    else:
        rng = generator("rng", rng)
        resamples = integer("resamples", resamples, minimum=100)
        sums = [
            rng.permuted(np.tile(values, (rows, 1)), axis=1)[:, :n_a].sum(axis=1)
            for rows in _blocks(resamples, n_a + n_b)
        ]
        sums = np.concatenate(sums)
    permuted = sums / n_a - (values.sum() - sums) / n_b
    slack = SLACK * np.abs(values).max()
    return _permutation_test(a.mean() - b.mean(), permuted, slack, exact, alternative)


def _permutation_test(difference, permuted, slack, exact, alternative):
    """p from the differences of means under all permutations, or under random ones."""
    choice("alternative", alternative, ALTERNATIVES)
    extra = 0 if exact else 1  # what was observed counts as one of a random sample
    counts = {
        "greater": int(np.count_nonzero(permuted >= difference - slack)),
        "less": int(np.count_nonzero(permuted <= difference + slack)),
    }
    share = {side: (n + extra) / (len(permuted) + extra) for side, n in counts.items()}
    p = share.get(alternative, min(1.0, 2 * min(share.values())))
    return PermutationTest(float(difference), p, len(permuted), exact, alternative)
