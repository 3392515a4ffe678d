"""How many runs a comparison needs: the power of the t test of a difference.

    power                  the chance that n runs show a difference, given its effect size
    smallest_effect        the effect size that n runs show in 80 % of the cases
    smallest_difference    the same in the units of the measure
    runs_needed            the n that shows a difference in 80 % of the cases

Paired (the default): n seeds, the effect size is d_z = difference / SD of the differences per seed.
Otherwise n runs of each of two systems, with d = difference / SD of the runs of one system.

The power is computed before the runs, for a difference of interest. The power for the difference
that was observed is p in other words (Hoenig and Heisey 2001). The SD of a few pilot runs is
uncertain itself: in 95 % of the cases that of 5 runs is between .35 and 1.67 times the true one.
"""

import math
from typing import Any

import numpy as np

from moe_np.base.checks import InputError, choice, integer, number
from moe_np.experiments.common.statistics import ALTERNATIVES

ALPHA = 0.05
POWER = 0.8


def power(
    effect: float,
    n: int,
    *,
    paired: bool = True,
    alpha: float = ALPHA,
    alternative: str = "two-sided",
) -> float:
    """The chance that the t test gives p < alpha (Cohen 1988, chapter 2): the tail of a noncentral
    t distribution beyond the critical value of the central one.

        paired          noncentrality d_z √n,        n − 1 degrees of freedom
        two samples     noncentrality d √(n / 2),    2 n − 2 degrees of freedom

    effect        d_z or d, of either sign; 0 gives alpha
    alternative   "two-sided" (either tail counts), "greater" or "less"
    """
    from scipy import stats

    choice("alternative", alternative, ALTERNATIVES)
    n = integer("n", n, minimum=2)
    alpha = _probability("alpha", alpha)
    shift = number("effect", effect) * math.sqrt(n if paired else n / 2)
    df = n - 1 if paired else 2 * n - 2
    critical = float(stats.t.isf(alpha / 2 if alternative == "two-sided" else alpha, df))
    with np.errstate(all="ignore"):  # warnings of some versions of SciPy far out in a tail
        upper, lower = (float(tail) for tail in stats.nct.sf(critical, df, [shift, -shift]))
    return {"two-sided": min(1.0, upper + lower), "greater": upper, "less": lower}[alternative]


def smallest_effect(
    n: int,
    *,
    paired: bool = True,
    target: float = POWER,
    alpha: float = ALPHA,
    two_sided: bool = True,
) -> float:
    """The effect size > 0 for which `power` is `target`, to nine digits."""
    from scipy import optimize

    target, alternative = _target(target, alpha, two_sided)

    def lacking(effect):
        return power(effect, n, paired=paired, alpha=alpha, alternative=alternative) - target

    high = 1.0
    while lacking(high) < 0:
        high *= 2
    brentq: Any = optimize.brentq  # SciPy states no types
    return float(brentq(lacking, 0.0, high, xtol=1e-12, rtol=1e-9))


def smallest_difference(
    n: int,
    sd: float,
    *,
    paired: bool = True,
    target: float = POWER,
    alpha: float = ALPHA,
    two_sided: bool = True,
) -> float:
    """The difference of means that n runs show with the chance `target`: `smallest_effect` · SD.

    sd   of the differences per seed, or if not paired of the runs of one system
    """
    sd = number("sd", sd, minimum=0)
    return sd * smallest_effect(n, paired=paired, target=target, alpha=alpha, two_sided=two_sided)


def runs_needed(
    difference: float,
    sd: float,
    *,
    paired: bool = True,
    target: float = POWER,
    alpha: float = ALPHA,
    two_sided: bool = True,
    maximum: int = 1_000_000,
) -> int:
    """The smallest n whose `power` for this difference of means is at least `target`.

    sd        of the differences per seed, or if not paired of the runs of one system
    maximum   InputError if not even as many runs suffice
    """
    effect = abs(number("difference", difference)) / number("sd", sd, greater_than=0)
    target, alternative = _target(target, alpha, two_sided)

    def suffices(n):
        return power(effect, n, paired=paired, alpha=alpha, alternative=alternative) >= target

    maximum = integer("maximum", maximum, minimum=2)
    if not suffices(maximum):
        raise InputError(
            f"difference: wanted one that {maximum:,} runs can show, got {difference!r}"
        )
    low, high = 1, 2  # low is too few
    while not suffices(high):
        low, high = high, min(2 * high, maximum)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _target(target, alpha, two_sided):
    """The power that is wanted, above alpha, and the name of the alternative."""
    target = _probability("target", target)
    alpha = _probability("alpha", alpha)
    if target <= alpha:
        raise InputError(f"target: wanted a power above alpha ({alpha:g}), got {target:g}")
    return target, "two-sided" if two_sided else "greater"


def _probability(name, value):
    if number(name, value, greater_than=0, maximum=1) == 1:
        raise InputError(f"{name}: wanted a number below 1, got 1")
    return float(value)
