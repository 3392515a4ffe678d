"""What several runs of the training methods show on one problem: level, failures, passes, means.

    level       a loss a tenth of the way from the best that any run reached to the mean of one
                expert alone
    stuck       a run that ends above the level and gained less than a hundredth of that way in its
                last fifth
    unfinished  above the level, and still gaining
    failed      test quality not even half-way from one expert alone to the best method's median

Without runs of one expert alone there is no level, and nothing that is measured by it.
"""

import math
from collections.abc import Sequence

import numpy as np

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.training_methods.runs import SINGLE

LEVEL = 0.1  # of the way from the best to one expert alone
GAIN = 0.01  # of that way
LATE = 0.8  # of the passes: the last fifth begins
HALF = 0.5  # of the way in quality
MEASURES = ("loss", "quality", "quality_hard", "specialisation", "idle", "variety")


def summarise(result: Result, problem: str) -> Result:
    """{"level", "failure", "best", "alone", "systems": {system: {...}}} of one problem.

    Per system: means and sample standard deviations, and where there is a level "stuck",
    "unfinished", "failed", "reached" (passes to the level of each run, or None), their median
    "passes", and "seconds". "whole" is the seconds of a run.
    """
    systems = result["systems"][problem]
    best = float(min(run["loss"] for runs in systems.values() for run in runs))
    summary = {"level": None, "failure": None, "best": best, "alone": None, "systems": {}}
    if SINGLE in systems:
        alone = float(_values(systems[SINGLE], "loss").mean())
        summary |= {"level": best + LEVEL * (alone - best), "alone": alone}
        summary["failure"] = _failure(systems)
    for system, runs in systems.items():
        seconds = result["seconds"][problem][system]
        out = {"whole": float(np.mean([run["passes"] for run in runs])) * seconds}
        if SINGLE in systems:
            points = np.asarray(result["checkpoints"][system])
            out |= _by_level(runs, points, summary)
            passes = out["passes"]
            out["seconds"] = None if passes is None else passes * seconds
        for key in MEASURES:
            out[key] = describe(_values(runs, key), single=0.0).record("mean", "sd")
        if "tuned_loss" in runs[0]:
            out |= _after_joint_training(runs)
        summary["systems"][system] = out
    return summary


def _values(runs, key):
    return np.array([run[key] for run in runs], float)


def _failure(systems):
    """The test quality below which a run has failed."""
    quality = {system: _values(runs, "quality") for system, runs in systems.items()}
    median = max(float(np.median(values)) for values in quality.values())
    return median - HALF * (median - float(quality[SINGLE].mean()))


def _by_level(runs, points, summary):
    """How many runs ended above the level or failed, and the passes to the level."""
    finals = _values(runs, "loss")
    losses = np.array([run["losses"] for run in runs])
    gained = losses[:, np.searchsorted(points, LATE * points[-1])] - finals
    missed = finals > summary["level"]
    moving = gained > GAIN * (summary["alone"] - summary["best"])
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


def _after_joint_training(runs):
    """What joint training still gains from the ends of the runs."""
    gains = [run["loss"] - run["tuned_loss"] for run in runs]
    quality = np.mean([run["tuned_quality"] - run["quality"] for run in runs])
    return {"gains": gains, "tuned": {"loss": float(np.median(gains)), "quality": float(quality)}}


def above_level(summary: Result) -> int:
    """The number of runs of a system that ended above the level."""
    return summary["stuck"] + summary["unfinished"]
