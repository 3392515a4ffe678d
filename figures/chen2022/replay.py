"""The authors' recorded notebook runs, and the same runs repeated here from the same random
numbers.

For each of the four settings the authors published a notebook with the test accuracy of ten
mixtures of cubic and ten of linear experts. What to see: every dot (replayed) sits in the ring
(recorded) of its run, though the runs differ by several points among each other. Below, the
dispatch entropy of every training pass: cubic experts divide the clusters among themselves within
some 150 epochs, linear ones hardly at all. Diamonds are the recorded mean and standard deviation of
the last pass.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.chen2022 import replay

TITLE = "Chen et al. 2022: the recorded notebook runs, replayed"
ORDER = 35
KINDS = {
    "moe_nonlinear": ("cubic experts", plots.BLUE),
    "moe_linear": ("linear experts", plots.ORANGE),
}
LONGEST_FIRST = (2, 4, 1, 3)  # so that two processes end at about the same time


def runs(ax, result):
    """Accuracy of each run: a ring where it was recorded, a dot where the replay came out."""
    for kind, (_, colour) in KINDS.items():
        recorded, replayed = result[kind]["recorded"]["accuracy"], result[kind]["accuracy"]
        ax.plot(
            range(1, 11),
            recorded,
            "o",
            markerfacecolor="none",
            markeredgecolor=colour,
            markersize=11,
            clip_on=False,
        )
        ax.scatter(range(1, len(replayed) + 1), replayed, s=25, color=colour, zorder=3)
    ax.set(
        xlim=(0.4, 10.6),
        ylim=(86, 100.6),
        xticks=(1, 5, 10),
        xlabel="run",
        title=f"setting {result['setting']}",
    )


def curves(ax, result):
    """Dispatch entropy of every run per epoch, and the recorded mean ± SD of the last epoch."""
    ax.axhline(np.log(4), color=plots.GREY, linewidth=1, linestyle=":")
    for kind, (_, colour) in KINDS.items():
        for curve in result[kind]["entropy_per_epoch"]:
            ax.plot(curve, color=colour, linewidth=0.9, alpha=0.65)
            ax.plot(len(curve) - 1, curve[-1], ".", color=colour, markersize=6)
        ax.errorbar(
            535,
            *spread(result[kind]),
            fmt="D",
            color=colour,
            markersize=6,
            capsize=4,
            clip_on=False,
            zorder=5,
        )
    ax.set(
        xlim=(0, 550), ylim=(-0.03, 1.5), xticks=(0, 250, 500), yticks=(0, 0.5, 1), xlabel="epoch"
    )


def spread(of):
    """Recorded mean and standard deviation of the entropy, as numbers."""
    return map(float, of["recorded"]["entropy"].split(" ± "))


def draw(results):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        2, len(results), figsize=(2 + 3.4 * len(results), 7.4), sharey="row", squeeze=False
    )
    for column, result in zip(axes.T, results, strict=True):
        runs(column[0], result)
        curves(column[1], result)
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[1, 0].set_ylabel("dispatch entropy (nats)")
    mean, sd = spread(results[-1]["moe_linear"])
    name(*axes[:, 0], axes[1, -1], mean - sd)
    return fig


def name(first, below, last, whisker):
    """Labels: kinds, ring and dot in the first column, the diamonds in the last."""
    for ax, places in ((first, (97.1, 89.9)), (below, (0.42, 1.1))):
        for (text, colour), y in zip(KINDS.values(), places, strict=True):
            plots.label(
                ax, 0.72, y, text, colour, transform=ax.get_yaxis_transform(), weight="bold"
            )
    rule = {
        "arrowprops": {"arrowstyle": "-", "linewidth": 1, "shrinkB": 8},
        "size": 12,
        "va": "center",
    }
    first.annotate("ring: recorded\ndot: replayed", (3, 88.94), (4.4, 87.4), **rule)
    below.text(
        545, 1.395, "ln 4: clusters not divided", size=11, color="#606060", ha="right", va="bottom"
    )
    last.annotate("recorded\nmean ± SD", (535, whisker), (400, 0.72), ha="center", **rule)


def specs(job):
    settings, limit = LONGEST_FIRST if job.full else (1,), 2 if job.quick else replay.MIXTURES
    store = None if job.sweep.store is None else str(job.sweep.store)
    return replay.run_one, [{"setting": s, "limit": limit, "store": store} for s in settings]


def make(job):
    results = sorted(job.sweep.map(*specs(job), "replay"), key=lambda result: result["setting"])
    with plots.style():
        job.save(draw(results), "chen2022_replay")
    return "![recorded and replayed](chen2022_replay.png)\n\n" + "\n\n".join(
        map(replay.report, results)
    )
