"""Table 6 of Shazeer et al. (2017): a router with and without load-balancing losses, on an
associative memory and not on a text.

What to see: without a loss a few experts do most of the work and the memory holds less. The CVs
fall as in the paper, but with weights of 1 only as long as the noise is on.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from figures import Job
from moe_np import plots
from moe_np.experiments import shazeer2017
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.shazeer2017.report import pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Shazeer et al. 2017, Table 6: the balance losses switched on and off"
ORDER = 105
PANELS = (  # column of the result, column of the published table, ticks, title
    ("cv_load", 4, (0.02, 0.1, 0.5, 2), "CV of the load"),
    ("max_mean", 5, (1, 2, 4, 8, 16), "most loaded expert / mean"),
    ("perplexity", 2, (8, 16, 32, 64), "perplexity of the stored keys"),
)


def draw_runs(ax: "Axes", y: float, runs: list[Result], name: str) -> None:
    """Ours with noise (filled) and without (hollow), one dot per run."""
    marks = {"s": 60, "edgecolors": plots.BLUE, "linewidths": 1.6, "zorder": 3}
    for noise, face, shift in (
        ("with noise", plots.BLUE, -0.12),
        ("without noise", "white", 0.12),
    ):
        values = [run[noise][name] for run in runs]
        ax.scatter(values, [y + shift] * len(values), facecolors=face, **marks)


def draw(axes: "Sequence[Axes]", result: Result) -> None:
    """One panel per column of the table, one line per pair of weights."""
    rows = [row for row in result["rows"] if row["common"]]
    for ax, (name, column, ticks, title) in zip(axes, PANELS, strict=True):
        for y, (row, published) in enumerate(zip(rows, result["paper"]["table6"], strict=True)):
            draw_runs(ax, y, row["runs"], name)
            if name != "perplexity":  # the published one belongs to another task
                ax.scatter(published[column], y - 0.34, s=50, marker="D", c=plots.BLACK, zorder=3)
            ax.axhline(y + 0.5, color=plots.GREY, linewidth=0.5, alpha=0.5)
        ax.set_xscale("log")
        ax.minorticks_off()
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.set_title(title)
    axes[0].set_yticks(range(len(rows)), [pair(row) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.6)
    axes[0].set_ylabel("weights of importance and load")
    for ax in axes:
        ax.tick_params(axis="y", length=0)


def draw_legend(ax: "Axes") -> None:
    """What the marks mean, inside the panel."""
    marks = (
        ("published", {"marker": "D", "c": plots.BLACK}),
        ("ours, noise on", {"c": plots.BLUE}),
        ("ours, noise off", {"facecolors": "white", "edgecolors": plots.BLUE}),
    )
    for i, (text, mark) in enumerate(marks):
        y = 0.632 - 0.058 * i
        ax.scatter(0.5, y, s=60, transform=ax.transAxes, **mark)
        ax.text(0.56, y, text, fontsize=12, va="center", transform=ax.transAxes)


def specs(job: Job) -> tuple[Callable[[Spec], Result], list[Spec]]:
    """The function and the specs of the runs that the figure needs."""
    return shazeer2017.run_one, shazeer2017.specs(quick=job.quick)


def make(job: Job) -> str:
    """Run the experiment and draw it; return its section of the report."""
    import matplotlib.pyplot as plt

    result = shazeer2017.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(13, 5.5), sharey=True)
        draw(axes, result)
        draw_legend(axes[1])
        job.save(fig, "shazeer2017_table6")
    return "![balance and quality](shazeer2017_table6.png)\n\n" + shazeer2017.report(result)
