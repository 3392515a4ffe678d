"""The recorded notebook runs of the authors, and the same runs repeated from the same random
numbers.

For each of the four settings the authors published a notebook with the test accuracy of ten
mixtures of cubic and ten of linear experts. What to see: every dot (replayed) lies in the ring
(recorded) of its run, though the runs differ by several points from each other. Below, the dispatch
entropy of every training pass: cubic experts divide the clusters among themselves within about 150
epochs, linear ones hardly at all. Diamonds are the recorded mean and standard deviation of the last
pass.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.chen2022 import replay
from moe_np.experiments.common.experiment import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Chen et al. 2022: the recorded notebook runs, replayed"
ORDER = 35
KINDS = {
    "moe_nonlinear": ("cubic experts", plots.BLUE),
    "moe_linear": ("linear experts", plots.ORANGE),
}
LONGEST_FIRST = (2, 4, 1, 3)  # so that two processes end at about the same time


def accuracies(ax: "Axes", result: Result) -> None:
    """The accuracy of each run: a ring for the recorded one, a dot for the replayed one."""
    ring = {"markerfacecolor": "none", "markersize": 11, "clip_on": False}
    for kind, (_, colour) in KINDS.items():
        recorded = result[kind]["recorded"]["accuracy"]
        replayed = result[kind]["accuracy"]
        ax.plot(range(1, 11), recorded, "o", markeredgecolor=colour, **ring)
        ax.scatter(range(1, len(replayed) + 1), replayed, s=25, color=colour, zorder=3)
    ax.set(xlim=(0.4, 10.6), ylim=(86, 100.6), xticks=(1, 5, 10), xlabel="run")
    ax.set_title(f"setting {result['setting']}")


def curves(ax: "Axes", result: Result) -> None:
    """Dispatch entropy of every run per epoch, and the recorded mean and SD of the last."""
    ax.axhline(np.log(4), color=plots.GREY, linewidth=1, linestyle=":")
    diamond = {"fmt": "D", "markersize": 6, "capsize": 4, "clip_on": False, "zorder": 5}
    for kind, (_, colour) in KINDS.items():
        for curve in result[kind]["entropy_per_epoch"]:
            ax.plot(curve, color=colour, linewidth=0.9, alpha=0.65)
            ax.plot(len(curve) - 1, curve[-1], ".", color=colour, markersize=6)
        ax.errorbar(535, *recorded_entropy(result[kind]), color=colour, **diamond)
    ax.set(xlim=(0, 550), ylim=(-0.03, 1.5), xticks=(0, 250, 500), yticks=(0, 0.5, 1))
    ax.set_xlabel("epoch")


def recorded_entropy(of_kind: Result) -> tuple[float, float]:
    """Recorded mean and standard deviation of the entropy, as numbers."""
    mean, sd = of_kind["recorded"]["entropy"].split(" ± ")
    return float(mean), float(sd)


def picture(results: Sequence[Result]) -> "Figure":
    """A column per setting: accuracies above, entropies below."""
    import matplotlib.pyplot as plt

    size = (2 + 3.4 * len(results), 7.4)
    fig, axes = plt.subplots(2, len(results), figsize=size, sharey="row", squeeze=False)
    for column, result in zip(axes.T, results, strict=True):
        accuracies(column[0], result)
        curves(column[1], result)
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[1, 0].set_ylabel("dispatch entropy (nats)")
    mean, sd = recorded_entropy(results[-1]["moe_linear"])
    add_labels(*axes[:, 0], axes[1, -1], mean - sd)
    return fig


def add_labels(upper: "Axes", lower: "Axes", last: "Axes", whisker: float) -> None:
    """Kinds, ring and dot in the first column, the diamonds in the last."""
    for ax, places in ((upper, (97.1, 89.9)), (lower, (0.42, 1.1))):
        for (text, colour), y in zip(KINDS.values(), places, strict=True):
            across = ax.get_yaxis_transform()
            plots.label(ax, 0.72, y, text, colour, transform=across, weight="bold")
    line = {"arrowstyle": "-", "linewidth": 1, "shrinkB": 8}
    style = {"arrowprops": line, "size": 12, "va": "center"}
    upper.annotate("ring: recorded\ndot: replayed", (3, 88.94), (4.4, 87.4), **style)
    text = "ln 4: clusters not divided"
    lower.text(545, 1.395, text, size=11, color="#606060", ha="right", va="bottom")
    text = f"recorded mean ± SD\n(population, n = {replay.RUNS})"
    last.annotate(text, (535, whisker), (385, 0.66), ha="center", **style)


def specs(job: Job) -> tuple:
    """(run_one, the replays)."""
    settings = LONGEST_FIRST if job.full else (1,)
    limit = 2 if job.quick else replay.MIXTURES
    store = None if job.sweep.store is None else str(job.sweep.store)
    return replay.run_one, [{"setting": s, "limit": limit, "store": store} for s in settings]


def make(job: Job) -> str:
    """Replay the notebooks and draw the figure; return its section of the report."""
    results = sorted(job.sweep.map(*specs(job), "replay"), key=lambda result: result["setting"])
    with plots.style():
        job.save(picture(results), "chen2022_replay")
    parts = ["![recorded and replayed](chen2022_replay.png)", *map(replay.report, results)]
    return "\n\n".join(parts)
