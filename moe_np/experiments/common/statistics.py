"""Means with intervals, t tests, proportions and effect sizes, of the runs of an experiment.

    mean and spread        describe: mean, sample SD (n − 1) or population SD (n), standard error
    intervals              t_interval, paired_interval, two_sample_interval, wilson_interval
    tests                  paired_t_test, two_sample_t_test (Welch's, or with pooled variance)
    size of an effect      cohens_d, hedges_g, d_z

Runs with the same seed saw the same data and, as far as possible, the same initialisation. Then the
difference per seed is what varies, and the paired forms are the ones to use. Intervals and tests
that assume no distribution are in `resampling`, how many runs are needed is in `power`, and several
claims at once and the verdict on a claim are in `verdicts`.

Every function takes the values of the runs, shape (n,), and raises InputError where there are none
and for NaN and infinity. What n values cannot say is None: the deviation and the bounds of one
value, t and p without any variance. None is JSON-able, and `reports` prints it as a dash.
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from moe_np.base.checks import InputError, array, choice, integer, number
from moe_np.base.types import ArrayN

Values: TypeAlias = Sequence[float] | ArrayN
BySeed: TypeAlias = Mapping[int, float]  # {seed: value}

ALTERNATIVES = ("two-sided", "greater", "less")


class Summary(NamedTuple):
    """Mean and deviation of n values. `summary[:2]` is the pair (mean, sd)."""

    mean: float
    sd: float | None  # None: not defined, there is one value
    n: int
    deviation: str  # "sample": divided by n − 1; "population": divided by n

    @property
    def se(self) -> float | None:
        """Standard error of the mean, sample SD / √n, which is population SD / √(n − 1)."""
        n = self.n if self.deviation == "sample" else self.n - 1
        return None if self.sd is None or n == 0 else self.sd / math.sqrt(n)

    def record(self, *keys: str) -> dict[str, Any]:
        """A dict that is JSON-able, with the keys asked for; all of them if none is."""
        values = {**self._asdict(), "se": self.se}
        return {key: values[choice("keys", key, values)] for key in keys or values}


class Interval(NamedTuple):
    """An estimate and the interval that holds its true value in `level` of all repetitions."""

    estimate: float
    low: float | None  # None: not defined, there is one value
    high: float | None
    level: float

    def flipped(self) -> "Interval":
        """The interval of −estimate: of b − a, where this one is of a − b."""
        if self.low is None or self.high is None:
            return self._replace(estimate=-self.estimate)
        return self._replace(estimate=-self.estimate, low=-self.high, high=-self.low)

    def record(self) -> dict[str, float | None]:
        """A dict that is JSON-able."""
        return self._asdict()


class TTest(NamedTuple):
    """A t test: the difference, t, degrees of freedom, and p of the alternative."""

    difference: float
    t: float | None  # None: nothing to test, one value or no variance
    df: float | None
    p: float | None
    alternative: str

    def record(self) -> dict[str, Any]:
        """A dict that is JSON-able."""
        return self._asdict()


# --- Entrances ------------------------------------------------------------------------------------


def sample(name: str, values: Values) -> ArrayN:
    """The values as a float64 array (n,), n ≥ 1. InputError for none, NaN and infinity."""
    out = array(name, values, ("n",)).astype(np.float64)
    if not len(out):
        raise InputError(f"{name}: wanted at least one value, got none")
    return out


def pairs(a: Values | BySeed, b: Values | BySeed | float) -> tuple[ArrayN, ArrayN]:
    """The values of two systems, seed by seed, (n,) each.

    a, b   values in the same order of seeds, or both {seed: value}; b may also be one number, with
           which each value of a is compared

    Raises InputError where the two have not the same seeds, or not as many values.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            seeds = ", ".join(sorted(map(str, set(a) ^ set(b))))
            raise InputError(f"b: wanted the seeds of a, got another set (different: {seeds})")
        b = [b[seed] for seed in a]
    elif isinstance(b, Mapping):
        raise InputError("b: wanted values in the order of a, which has no seeds, got a dict")
    a = sample("a", list(a.values()) if isinstance(a, Mapping) else a)
    is_number = isinstance(b, (int, float, numbers.Real))
    b = np.full(len(a), number("b", b)) if is_number else sample("b", b)
    if len(a) != len(b):
        raise InputError(f"b: wanted one value per value of a, {len(a)}, got {len(b)}")
    return a, b


def paired_difference(a: Values | BySeed, b: Values | BySeed | float = 0.0) -> ArrayN:
    """a − b, seed by seed, (n,); a and b as in `pairs`."""
    a, b = pairs(a, b)
    return a - b


def checked_level(level: float) -> float:
    """The level of an interval as a float after checking that it lies between 0 and 1."""
    if number("level", level, greater_than=0, maximum=1) == 1:
        raise InputError("level: wanted a number below 1, got 1")
    return float(level)


def is_constant(values: ArrayN) -> bool:
    """Are all values the same? (Their computed deviation need not be 0: the mean is rounded.)"""
    return bool((values == values[0]).all())


# --- Mean and spread ------------------------------------------------------------------------------


def describe(values: Values, *, deviation: str = "sample", single: float | None = None) -> Summary:
    """Mean and standard deviation, √(Σ (x − x̄)² / (n − 1)).

    deviation   "sample" divides by n − 1: the spread of runs like these. "population" divides by n:
                the spread of these runs, which is what some papers print. It is smaller.
    single      the sample SD of one value: not defined (None), or 0.0 as in older result files
    """
    choice("deviation", deviation, ("sample", "population"))
    values = sample("values", values)
    ddof = 1 if deviation == "sample" else 0
    sd = float(values.std(ddof=ddof)) if len(values) > ddof else single
    return Summary(float(values.mean()), sd, len(values), deviation)


# --- Intervals ------------------------------------------------------------------------------------


def t_interval(values: Values, *, level: float = 0.95) -> Interval:
    """The t interval of a mean: x̄ ± t · s / √n, with the (1 + level) / 2 quantile of Student's t
    with n − 1 degrees of freedom (Student 1908).

    Its level is exact for normal values and good for means of some ten values without outliers.
    One value has no bounds (None); values that are all the same have an interval of width 0, which
    says nothing about values that were not seen.
    """
    level = checked_level(level)
    values = sample("values", values)
    summary = describe(values)
    if summary.se is None:
        return Interval(summary.mean, None, None, level)
    se = 0.0 if is_constant(values) else summary.se
    return _around(summary.mean, se, summary.n - 1, level)


def paired_interval(
    a: Values | BySeed, b: Values | BySeed | float = 0.0, *, level: float = 0.95
) -> Interval:
    """The t interval of the mean of a − b, seed by seed: `t_interval` of `paired_difference`."""
    return t_interval(paired_difference(a, b), level=level)


def two_sample_interval(
    a: Values | Summary, b: Values | Summary, *, pooled: bool = False, level: float = 0.95
) -> Interval:
    """The t interval of the difference of two means from different seeds, a's less b's.

    The standard error and the degrees of freedom are those of `two_sample_t_test`. No bounds (None)
    where one of the two has one value.
    """
    level = checked_level(level)
    difference, se, df = _two_sample(a, b, pooled)
    if se is None:
        return Interval(difference, None, None, level)
    return _around(difference, se, df, level)


def _around(mean, se, df, level):
    from scipy import stats

    half = float(stats.t.ppf((1 + level) / 2, df)) * se if se > 0 else 0.0
    return Interval(mean, mean - half, mean + half, level)


def wilson_interval(count: int, n: int, *, level: float = 0.95) -> Interval:
    """The score interval of a proportion p̂ = count / n (Wilson 1927), z the normal quantile:

        (p̂ + z² / 2n ± z √(p̂ (1 − p̂) / n + z² / 4n²)) / (1 + z² / n)

    It stays within 0 and 1 and is of use for 0 of n and n of n too.
    """
    from scipy import stats

    level = checked_level(level)
    n = integer("n", n)
    share = integer("count", count, minimum=0, maximum=n) / n
    z = float(stats.norm.ppf((1 + level) / 2))
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low = 0.0 if count == 0 else (centre - half) / (1 + z**2 / n)
    high = 1.0 if count == n else (centre + half) / (1 + z**2 / n)
    return Interval(share, low, high, level)


# --- t tests --------------------------------------------------------------------------------------


def paired_t_test(
    a: Values | BySeed, b: Values | BySeed | float = 0.0, *, alternative: str = "two-sided"
) -> TTest:
    """The paired t test: t = d̄ / (s_d / √n), d = a − b seed by seed, n − 1 degrees of freedom
    (Student 1908). With a number for b, the t test of one sample.

    alternative   "two-sided", "greater" (the mean of a is the greater one) or "less"

    t and p are None for one seed, and for differences that are all the same: there is no variance
    to test against; `resampling.paired_permutation_test` can tell them from chance.
    """
    values = paired_difference(a, b)
    n = len(values)
    se = 0.0 if is_constant(values) else math.sqrt(_variance(values) / n)
    return _t_test(float(values.mean()), se, n - 1, alternative)


def two_sample_t_test(
    a: Values | Summary,
    b: Values | Summary,
    *,
    pooled: bool = False,
    alternative: str = "two-sided",
) -> TTest:
    """The t test of two means from different seeds. With v = s² / n of each of the two:

        Welch (1947)    t = (x̄_a − x̄_b) / √(v_a + v_b)
                        1 / df = r² / (n_a − 1) + (1 − r)² / (n_b − 1),   r = v_a / (v_a + v_b)
        pooled          t = (x̄_a − x̄_b) / √(s² (1 / n_a + 1 / n_b)),   df = n_a + n_b − 2
                        s² = ((n_a − 1) s_a² + (n_b − 1) s_b²) / df   (equal variances assumed)

    a, b   values, or a Summary of them (with the sample SD), as of a published mean ± SD

    t and p are None where one of the two has one value, and where neither has any variance.
    """
    difference, se, df = _two_sample(a, b, pooled)
    return _t_test(difference, se, df, alternative)


def _t_test(difference, se, df, alternative):
    from scipy import stats

    choice("alternative", alternative, ALTERNATIVES)
    if not se:
        return TTest(difference, None, df, None, alternative)
    t = difference / se
    if alternative == "two-sided":
        p = 2 * stats.t.sf(abs(t), df)
    else:
        p = stats.t.sf(t if alternative == "greater" else -t, df)
    return TTest(difference, t, df, float(p), alternative)


def _two_sample(a, b, pooled):
    """(difference, its standard error or None, degrees of freedom) of two samples."""
    mean_a, variance_a, n_a = _moments("a", a)
    mean_b, variance_b, n_b = _moments("b", b)
    difference = mean_a - mean_b
    df = n_a + n_b - 2
    if variance_a is None or variance_b is None:
        return difference, None, df if pooled else None
    if pooled:
        variance = ((n_a - 1) * variance_a + (n_b - 1) * variance_b) / df
        return difference, math.sqrt(variance * (1 / n_a + 1 / n_b)), df
    v_a, v_b = variance_a / n_a, variance_b / n_b
    if v_a + v_b == 0:
        return difference, 0.0, None
    share = v_a / (v_a + v_b)
    df = 1 / (share**2 / (n_a - 1) + (1 - share) ** 2 / (n_b - 1))
    return difference, math.sqrt(v_a + v_b), df


def _moments(name, values):
    """(mean, sample variance or None, n) of values or of a Summary."""
    if not isinstance(values, Summary):
        values = sample(name, values)
        variance = None if len(values) == 1 else 0.0 if is_constant(values) else _variance(values)
        return float(values.mean()), variance, len(values)
    if values.deviation != "sample":
        raise InputError(f"{name}: wanted a Summary with the sample SD, got the population SD")
    variance = None if values.sd is None or values.n <= 1 else values.sd * values.sd
    return values.mean, variance, values.n


def _variance(values):
    """The sample variance. The order of the products is SciPy's: p values keep their bits."""
    n = len(values)
    return float(np.mean((values - values.mean()) ** 2)) * (n / (n - 1))


# --- The size of an effect ------------------------------------------------------------------------


def cohens_d(a: Values, b: Values) -> float | None:
    """Cohen's d of runs with different seeds: (x̄_a − x̄_b) / s, s² the pooled variance
    (Cohen 1988, section 2.2), which is t √(1 / n_a + 1 / n_b).

    None where one of the two has one value or neither has any variance.
    """
    t = two_sample_t_test(sample("a", a), sample("b", b), pooled=True).t
    return None if t is None else t * math.sqrt(1 / len(a) + 1 / len(b))


def hedges_g(a: Values, b: Values) -> float | None:
    """Hedges' g: Cohen's d without its bias in small samples (Hedges 1981). None where d is.

    g = J d,   J = Γ(df / 2) / (√(df / 2) Γ((df − 1) / 2)),   df = n_a + n_b − 2
    """
    d = cohens_d(a, b)
    if d is None:
        return None
    half = (len(a) + len(b) - 2) / 2
    correction = math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(half)
    return correction * d


def d_z(a: Values | BySeed, b: Values | BySeed | float = 0.0) -> float | None:
    """d_z of a paired difference: d̄ / s_d (Cohen 1988, p. 48), which is t / √n.

    None for one seed and for differences that are all the same.
    """
    t = paired_t_test(a, b).t
    return None if t is None else t / math.sqrt(len(a))
