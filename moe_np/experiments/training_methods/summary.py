"""What several runs of the training methods show on one problem: level, failures, passes, means.

    best        the least of the methods' median losses: it does not move with the number of runs,
                as the single best run does
    level       a loss a tenth of the way from there to the mean of one expert alone
    stuck       a run that ends above the level and gained less than a hundredth of that way in its
                last fifth
    unfinished  above the level, and still gaining
    failed      test quality not even half-way from one expert alone to the best method's median

These numbers are our choices, `Thresholds`. No claim is decided by what is stuck, unfinished or
failed: these are columns of the tables. `sensitivity.py` has the verdicts with other levels and
another `ceiling`, the passes that a run which is not there at the end may need at most. Without
runs of one expert alone there is no level, and nothing that is measured by it. The controls of the
claims take no part in the level, and none in what counts as failed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import choice
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.training_methods.runs import CONTROLS, KNOB_OF, LONGER, SINGLE


class Thresholds(NamedTuple):
    """What is chosen freely, and tells runs that arrive from runs that do not."""

    level: float = 0.1  # of the way from the best to one expert alone
    gain: float = 0.01  # of that way
    late: float = 0.8  # of the passes: the last fifth begins
    half: float = 0.5  # of the way in quality
    best: str = "median"  # where the way begins, a key of BEST
    ceiling: float = 10  # times the budget, that a run which misses the level needs at most


DEFAULT = Thresholds()
BEST = ("median", "median of equal budget", "single run")
OTHERS = (LONGER, *KNOB_OF, SINGLE)  # of another budget, told the regions, or no mixture
MEASURES = ("loss", "quality", "quality_hard", "specialisation", "idle", "variety")


def summarise(result: Result, problem: str, thresholds: Thresholds = DEFAULT) -> Result:
    """{"level", "failure", "best", "alone", "ceiling", "systems": {system: {...}}} of one problem.

    Per system: means and sample standard deviations, in TUNED "gains" (nats that the experts gain
    when they go on), and where there is a level "stuck",
    "unfinished", "failed", "reached" (passes to the level of each run, or None), their median
    "passes", and "seconds". "whole" is the seconds of a run.
    """
    systems = result["systems"][problem]
    methods = {name: runs for name, runs in systems.items() if name not in CONTROLS}
    best = _best(methods, choice("thresholds.best", thresholds.best, BEST))
    summary = {"level": None, "failure": None, "best": best, "alone": None, "systems": {}}
    summary["ceiling"] = thresholds.ceiling
    if SINGLE in systems:
        alone = float(_values(systems[SINGLE], "loss").mean())
        summary |= {"level": best + thresholds.level * (alone - best), "alone": alone}
        summary["failure"] = _failure(methods, thresholds.half)
    for system, runs in systems.items():
        seconds = result["seconds"][problem][system]
        out = {"whole": float(np.mean([run["passes"] for run in runs])) * seconds}
        if SINGLE in systems:
            points = np.asarray(result["checkpoints"][system])
            out |= _by_level(runs, points, summary, thresholds)
            passes = out["passes"]
            out["seconds"] = None if passes is None else passes * seconds
        for key in MEASURES:
            out[key] = describe(_values(runs, key), single=0.0).record("mean", "sd")
        if "tuned_loss" in runs[0]:
            out["gains"] = [run["loss"] - run["tuned_loss"] for run in runs]
        summary["systems"][system] = out
    return summary


def _best(systems, way):
    """Where the way to one expert alone begins: the least median of the methods, of those with
    equal budget if there are any, or the loss of the best run.
    """
    compared = {name: _values(runs, "loss") for name, runs in systems.items()}
    if way == "single run":
        return float(min(losses.min() for losses in compared.values()))
    if way == "median of equal budget":
        equal = {name: losses for name, losses in compared.items() if name not in OTHERS}
        compared = equal or compared
    return float(min(np.median(losses) for losses in compared.values()))


def _values(runs, key):
    return np.array([run[key] for run in runs], float)


def _failure(systems, half):
    """The test quality below which a run has failed."""
    quality = {system: _values(runs, "quality") for system, runs in systems.items()}
    median = max(float(np.median(values)) for values in quality.values())
    return median - half * (median - float(quality[SINGLE].mean()))


def _by_level(runs, points, summary, thresholds):
    """How many runs ended above the level or failed, and the passes to the level."""
    finals = _values(runs, "loss")
    losses = np.array([run["losses"] for run in runs])
    gained = losses[:, np.searchsorted(points, thresholds.late * points[-1])] - finals
    missed = finals > summary["level"]
    moving = gained > thresholds.gain * (summary["alone"] - summary["best"])
    reached = [_first(points, curve, summary["level"]) for curve in losses]
    return {
        "stuck": int((missed & ~moving).sum()),
        "unfinished": int((missed & moving).sum()),
        "failed": int((_values(runs, "quality") < summary["failure"]).sum()),
        "reached": reached,
        "passes": median_of_reached(reached),
    }


def _first(points, curve, level):
    """The first checkpoint at which the curve is at the level or below; None if it never is."""
    for point, loss in zip(points, curve, strict=True):
        if loss <= level:
            return float(point)
    return None


def median_of_reached(reached: Sequence[float | None]) -> float | None:
    """The lower median, where None (never) counts as infinite. None if that is the median."""
    values = sorted(math.inf if passes is None else passes for passes in reached)
    median = values[(len(values) - 1) // 2]
    return None if math.isinf(median) else median


def above_level(summary: Result) -> int:
    """The number of runs of a system that ended above the level."""
    return summary["stuck"] + summary["unfinished"]
