"""The error of trees and nets on the surrogate arm, against passes over the data and against
seconds.

What to see: counted in passes, as the paper counts, EM is far ahead of batch backpropagation. One
epoch of EM costs many epochs of backpropagation, and against the clock its lead is smaller or gone.
The on-line learners, which are compiled here, are faster than both.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.base.types import Array
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import plural
from moe_np.experiments.jordan1994 import experiment
from moe_np.experiments.jordan1994.report import passes_and_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Jordan and Jacobs 1994: error against epochs and against seconds (surrogate arm)"
ORDER = 130
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.31, 1)
LINES = {
    "backprop": (plots.ORANGE, "-"),
    "backprop, on-line": (plots.ORANGE, "--"),
    "HME, Algorithm 1": (plots.BLUE, "-"),
    "HME, Algorithm 2": (plots.SKY, "-"),
    "HME, on-line": (plots.BLUE, "--"),
    "HME, gradient": (plots.PINK, "--"),
}


class Curve(NamedTuple):
    """Over all seeds: epochs, mean seconds, and mean, lowest and highest error at each epoch."""

    epochs: list[int]
    seconds: Array
    mean: Array
    low: Array
    high: Array


def curve(runs: Sequence[Result]) -> Curve:
    """The error at the epochs that all runs have, without epoch 0."""
    shared = sorted(set.intersection(*(set(run["epochs"]) for run in runs)) - {0})
    errors = []
    seconds = []
    for run in runs:
        places = [run["epochs"].index(epoch) for epoch in shared]
        errors.append(np.array(run["errors"])[places])
        seconds.append(np.array(run["timing"]["seconds"])[places])
    errors = np.array(errors)
    extremes = errors.min(axis=0), errors.max(axis=0)
    return Curve(shared, np.array(seconds).mean(axis=0), errors.mean(axis=0), *extremes)


def draw(axes: "Sequence[Axes]", result: Result) -> None:
    """Two panels: the errors against epochs, and against seconds."""
    for system, (colour, style) in LINES.items():
        line = curve(result["systems"][system])
        for ax, x in zip(axes, (line.epochs, line.seconds), strict=True):
            ax.fill_between(x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(x, line.mean, style, color=colour, linewidth=2.2, label=system)
            ax.plot(x[-1], line.mean[-1], "o", color=colour, markersize=6)
    linear = result["summary"]["linear"]["error"]["mean"]
    for ax in axes:
        ax.set(xscale="log", yscale="log")
        ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        ax.minorticks_off()
        ax.axhline(linear, color=plots.GREY, linewidth=1, linestyle=":")
    axes[0].set_ylim(None, 1.1)
    axes[0].set_ylabel("relative error on the test set")
    axes[0].set_xlabel("epochs")
    axes[1].set_xlabel("seconds of learning, one core")
    right = axes[1].get_xlim()[1]
    place = {"ha": "right", "va": "bottom"}
    plots.label(axes[1], right, linear * 1.03, "the best linear map", plots.GREY, **place)
    room = {"loc": "upper right", "bbox_to_anchor": (1.02, 1.02), "columnspacing": 1.2}
    axes[0].legend(frameon=False, ncol=2, fontsize=10.5, handlelength=2.2, **room)


def specs(job: Job) -> tuple[Callable[[Spec], Result], list[Spec]]:
    """The runs that can be started before this script is made."""
    return experiment.run_one, experiment.specs(quick=job.quick)


def make(job: Job) -> str:
    """Run the experiment and draw its curves; return its section of the report."""
    import matplotlib.pyplot as plt

    result = experiment.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 5.6), sharey=True)
        draw(axes, result)
        job.save(fig, "jordan1994_error_curves")
    return (
        "![error curves](jordan1994_error_curves.png)\n\n"
        f"Mean over {plural(len(result['seeds']), 'seed')}; shaded: lowest to highest. Solid: "
        "batch, dashed: case by case (compiled). Seconds are of learning alone, on the machine "
        "that made this report; nothing else here changes when the runs are repeated. "
        + passes_and_seconds(result)
    )
