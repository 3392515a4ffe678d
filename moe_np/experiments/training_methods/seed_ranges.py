"""What the claims measure, seed by seed, as a range that holds the true value.

Two runs are compared from the same seed, that is from the same initialisation. A run that is not at
the level when its budget ends needs more passes than that, and nobody knows how many more: up to
the ceiling times the budget, and a run that needs more counts as if it needed just as much.
So its number is a range, and so is the ratio of two. Seconds per pass are a range as well.

The interval of a case goes from the lower bound for the least of all these values to the upper
bound for the greatest. It is wide where many runs never arrive, and then it cannot be told.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.base.types import ArrayN
from moe_np.experiments.common.decisions import Decision, decide
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.statistics import Interval
from moe_np.experiments.common.verdicts import Criterion, verdict


class Range(NamedTuple):
    """The least and the greatest value that each run may have, by seed."""

    least: ArrayN
    greatest: ArrayN


Measure = Callable[[Result, str, str, str], Range]  # of a result, a problem, and two systems


def passes(result: Result, problem: str, system: str) -> Range:
    """The passes to the level of the runs of a system."""
    budget = result["checkpoints"][system][-1]
    summary = result["summary"][problem]
    reached = summary["systems"][system]["reached"]
    ends = [(budget, summary["ceiling"] * budget) if p is None else (p, p) for p in reached]
    return Range(*np.array(ends, float).T)


def seconds(result: Result, problem: str, system: str) -> Range:
    """The seconds to the level."""
    least, greatest = result["seconds_range"][problem][system]
    work = passes(result, problem, system)
    return Range(work.least * least, work.greatest * greatest)


def _log_ratio(a, b):
    return Range(np.log(a.least / b.greatest), np.log(a.greatest / b.least))


def passes_ratio(result: Result, problem: str, a: str, b: str) -> Range:
    """Log of the ratio of the passes to the level, a over b."""
    return _log_ratio(*(passes(result, problem, system) for system in (a, b)))


def seconds_ratio(result: Result, problem: str, a: str, b: str) -> Range:
    """Log of the ratio of the seconds to the level, a over b."""
    return _log_ratio(*(seconds(result, problem, system) for system in (a, b)))


def extra_gain(result: Result, problem: str, a: str, b: str) -> Range:
    """What the experts gain when they go on with the gate held, from the ends of a less of b."""
    systems = result["summary"][problem]["systems"]
    values = np.subtract(systems[a]["gains"], systems[b]["gains"])
    return Range(values, values)


def decide_range(case: str, rule: Criterion, values: Range) -> Decision:
    """The decision on values of which only a range is known; else as `decisions.decide`.

    "estimate" and "effect" are of the middle of each range.
    """
    low, middle, high = (
        decide(case, rule, ends)
        for ends in (values.least, np.mean(values, axis=0), values.greatest)
    )
    bounds = Interval(middle["estimate"], low["low"], high["high"], rule.level)
    decision = {**middle, **bounds.record(), "verdict": verdict(rule, bounds)}
    if middle["detectable"] is not None:
        unknown = (high["estimate"] - low["estimate"]) / 2
        decision["detectable"] += unknown if rule.direction == "greater" else -unknown
    return decision
