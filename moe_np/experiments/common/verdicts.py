"""Verdicts: several claims at once, and whether a claim holds by a criterion that was fixed before.

    holm, bonferroni_level    p values and intervals of several claims that are looked at together
    Criterion                 what is measured, and the smallest difference of interest
    verdict                   holds, not supported, or cannot be told
    is_below_0, side_of_0      on which side of 0 the interval of a difference lies

With several claims in one table some come out by chance: of 45 tests at p < .05, about two.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from moe_np.base.checks import InputError, choice, integer, number
from moe_np.experiments.common.statistics import Interval, checked_level

# --- Several claims at once -----------------------------------------------------------------------


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p values of m tests (Holm 1979): to reject where they are below α rejects any true
    null hypothesis with a chance of at most α, whatever the dependence of the tests.

        p'_(i) = max over j ≤ i of min(1, (m − j + 1) p_(j)),   p_(1) ≤ ... ≤ p_(m)

    None (nothing to test) stays None and counts in m.
    """
    p = list(p)
    known = {i: value for i, value in enumerate(p) if value is not None}
    for i, value in known.items():
        number(f"p[{i}]", value, minimum=0, maximum=1)
    out: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: known[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * float(known[i])))
        out[i] = largest
    return out


def bonferroni_level(level: float, m: int) -> float:
    """The level of each of m intervals that hold all their true values together in `level` of all
    repetitions: 1 − (1 − level) / m.
    """
    return 1 - (1 - checked_level(level)) / integer("m", m)


# --- Verdicts -------------------------------------------------------------------------------------

HOLDS = "holds"
NOT_SUPPORTED = "not supported"
CANNOT_BE_TOLD = "cannot be told"
VERDICTS = (HOLDS, NOT_SUPPORTED, CANNOT_BE_TOLD)


class Criterion(NamedTuple):
    """What decides about a claim. It is a constant of the experiment, written before the runs.

    measure     what the interval is of, such as "error of the net less error of the mixture"
    smallest    the smallest difference of interest, ≥ 0: one below it does not matter to a reader
    direction   "greater": the claim is that the measure is above `smallest`
                "less": the claim is that it is below −smallest
    level       of the interval (with several claims, see `bonferroni_level`)
    """

    measure: str
    smallest: float
    direction: str = "greater"
    level: float = 0.95

    def text(self) -> str:
        """The criterion as a sentence for a report."""
        greater = self.direction == "greater"
        bound = self.smallest if greater or self.smallest == 0 else -self.smallest
        return (
            f"The claim holds if the whole {100 * self.level:g} % interval of the {self.measure} "
            f"lies {'above' if greater else 'below'} {bound:g}; it is not supported if no part "
            "does; in between it cannot be told."
        )


def verdict(criterion: Criterion, interval: Interval) -> str:
    """One of VERDICTS: where the interval lies, seen from the smallest difference of interest.

        holds            low > smallest: every plausible difference matters, and goes the right way
        not supported    high ≤ smallest: a difference that matters is excluded
        cannot be told   the interval holds differences of both kinds, or has no bounds

    Each of the first two is wrong in at most (1 − level) / 2 of all repetitions. That no difference
    was found is no verdict here: with few runs the interval is wide, and cannot be told follows.
    Raises InputError where the interval has another level than the criterion.
    """
    smallest = number("smallest", criterion.smallest, minimum=0)
    choice("direction", criterion.direction, ("greater", "less"))
    if not math.isclose(interval.level, criterion.level, abs_tol=1e-12):
        raise InputError(f"interval: wanted the level {criterion.level}, got {interval.level}")
    if criterion.direction == "less":
        interval = interval.flipped()
    if interval.low is None or interval.high is None:
        return CANNOT_BE_TOLD
    if interval.low > smallest:
        return HOLDS
    return NOT_SUPPORTED if interval.high <= smallest else CANNOT_BE_TOLD


# --- On which side of 0 ---------------------------------------------------------------------------


def is_below_0(difference: Mapping[str, Any] | None) -> bool:
    """Whether there is an interval, as `Interval.record` has it, and all of it lies below 0."""
    return difference is not None and difference["high"] is not None and difference["high"] < 0


def side_of_0(
    difference: Mapping[str, Any],
    *,
    negative: str,
    positive: str,
    neither: str,
    single: str = "one seed cannot tell",
) -> str:
    """One of four texts: the whole interval of the difference, as `Interval.record` has it, lies
    below 0, above 0, or neither; or it has no bounds, as with a single seed.
    """
    if difference["low"] is None:
        return single
    if is_below_0(difference):
        return negative
    return positive if difference["low"] > 0 else neither
