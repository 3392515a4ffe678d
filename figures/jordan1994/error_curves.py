"""The error of trees and nets on the surrogate arm, against passes over the data and against
seconds.

What to see: counted in passes EM is far ahead of batch backprop, which is how the paper counts. An
epoch of EM costs many of backprop's, and against a clock the lead is smaller or gone; on-line
learners, compiled here, beat both.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.jordan1994 import experiment as robot

TITLE = "Jordan and Jacobs 1994: error against epochs and against seconds (surrogate arm)"
ORDER = 130
LINES = {
    "backprop": (plots.ORANGE, "-"),
    "backprop, on-line": (plots.ORANGE, "--"),
    "HME, Algorithm 1": (plots.BLUE, "-"),
    "HME, Algorithm 2": (plots.SKY, "-"),
    "HME, on-line": (plots.BLUE, "--"),
    "HME, gradient": (plots.PINK, "--"),
}


def curve(runs):
    """epochs, mean seconds, and mean, lowest and highest error there, over all seeds; without epoch
    0.
    """
    shared = sorted(set.intersection(*(set(run["epochs"]) for run in runs)) - {0})
    rows = [[run["epochs"].index(e) for e in shared] for run in runs]
    errors = np.array([np.array(run["errors"])[at] for run, at in zip(runs, rows, strict=True)])
    seconds = np.array(
        [np.array(run["timing"]["seconds"])[at] for run, at in zip(runs, rows, strict=True)]
    )
    return shared, seconds.mean(axis=0), errors.mean(axis=0), errors.min(axis=0), errors.max(axis=0)


def draw(axes, result):
    for system, (colour, style) in LINES.items():
        epochs, seconds, mean, low, high = curve(result["systems"][system])
        for ax, x in zip(axes, (epochs, seconds), strict=True):
            ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(x, mean, style, color=colour, linewidth=2.2, label=system)
            ax.plot(x[-1], mean[-1], "o", color=colour, markersize=6)
    for ax in axes:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.31, 1)
        ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
        linear = result["summary"]["linear"]["error"]["mean"]
        ax.axhline(linear, color=plots.GREY, linewidth=1, linestyle=":")
    axes[0].set_ylim(None, 1.1)
    axes[0].set_ylabel("relative error on the test set")
    axes[0].set_xlabel("epochs")
    axes[1].set_xlabel("seconds of learning, one core")
    plots.label(
        axes[1],
        axes[1].get_xlim()[1],
        linear * 1.03,
        "the best linear map",
        plots.GREY,
        ha="right",
        va="bottom",
    )
    room = {
        "loc": "upper right",
        "bbox_to_anchor": (1.02, 1.02),
        "columnspacing": 1.2,
        "handlelength": 2.2,
    }
    axes[0].legend(frameon=False, ncol=2, fontsize=10.5, **room)


def specs(job):
    return robot.run_one, robot.plan(quick=job.quick)[2]


def make(job):
    import matplotlib.pyplot as plt

    result = robot.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 5.6), sharey=True)
        draw(axes, result)
        job.save(fig, "jordan1994_error_curves")
    n = len(result["seeds"])
    return (
        f"![error curves](jordan1994_error_curves.png)\n\nMean over {n} seed{'s' if n > 1 else ''}; shaded: lowest to "
        "highest. Solid: batch, dashed: case by case (compiled). Seconds are of learning alone, and of the machine "
        "that made this; they are the only thing here that another run does not repeat bit by bit. "
        + robot.limits(result).split("\n\n")[1]
    )
