"""Who takes what: when it is decided, whether by chance, and whether the gate's beginning decides.

What to see: left, what the choice of the expert tells about the region, against the share of the
training that is done (median and the middle four fifths of the runs): nothing for a while, then
nearly all; on the vowels the gate goes back and forth before it settles. Middle: how many of all
runs each of eight experts took each region; the dashed line is what chance gives. Right: how much
of the allocation stays when only the initial experts, only the initial gate, or only the noise of
the routing is kept.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import why_it_works
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.why_it_works.allocation_at_random import REGIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Why it works: who specialises in what"
ORDER = 155
QUESTIONS = ("time", "random", "start")
TASKS = {"vowels": plots.BLUE, "patches": plots.ORANGE}
SOURCES = {  # of chance: colour, words
    "experts": (plots.GREEN, "only the experts' start kept"),
    "gate": (plots.BLUE, "only the gate's start kept"),
    "noise": (plots.GREY, "only the noise kept"),
}


def learning(ax: "Axes", summary: Sequence[Result]) -> None:
    """Bits about the region, as a share of those at the end, against the share of the epochs."""
    share = np.linspace(0, 100, 101)
    for cell in summary[: len(TASKS)]:  # not the controls
        colour = TASKS[cell["task"]]
        curves = [
            np.interp(share, np.linspace(0, 100, len(bits)), bits) / bits[-1]
            for bits in cell["curves"]
            if bits[-1] > 0
        ]
        low, middle, high = np.quantile(curves, (0.1, 0.5, 0.9), axis=0)
        ax.fill_between(share, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(share, middle, color=colour, linewidth=3)
    text = {"transform": ax.transAxes, "ha": "right", "weight": "bold"}
    ax.text(0.97, 0.16, "vowels, 2 regions", color=plots.BLUE, **text)
    ax.text(0.97, 0.08, "patches, 4 clusters", color=plots.ORANGE, **text)
    ax.set(xlabel="% of the epochs", ylabel="bits about the region / those in the end")
    ax.set(ylim=(0, 1.15), xlim=(0, 100))


def counts(ax: "Axes", summary: Sequence[Result]) -> None:
    """One group of bars per region, one bar per expert."""
    place = 0.0
    ticks = {}
    for cell in summary[: len(TASKS)]:  # not the controls
        colour = TASKS[cell["task"]]
        for region, runs in zip(REGIONS[cell["task"]], cell["counts"], strict=True):
            ax.bar(place + 0.1 * np.arange(len(runs)), runs, 0.09, color=colour)
            line = {"color": plots.BLACK, "linestyle": "--", "linewidth": 1.2}
            ax.plot([place - 0.07, place + 0.77], [cell["n"] / len(runs)] * 2, **line)
            ticks[place + 0.35] = region.replace("cluster ", "cluster\n")
            place += 1.1
    ax.set_xticks(list(ticks), ticks.values(), size=11)
    ax.set(ylabel=f"runs of {summary[0]['n']} in which expert 1, 2, ... took it")


def explained(ax: "Axes", summary: Sequence[Result]) -> None:
    """The share of the allocation that each source of chance explains, ± standard error."""
    width = 0.26
    for i, cell in enumerate(summary):
        for j, (source, (colour, _)) in enumerate(SOURCES.items()):
            if source in cell["explained"]:
                height = 100 * cell["explained"][source]
                error = 100 * cell["se"][source]
                ax.bar(i + (j - 1) * width, height, width * 0.9, color=colour, yerr=error)
    text = {"transform": ax.transAxes, "weight": "bold", "va": "top"}
    for j, (colour, words) in enumerate(SOURCES.values()):
        ax.text(0.02, 0.97 - 0.07 * j, words, color=colour, **text)
    ax.axhline(0, color=plots.BLACK, linewidth=1)
    names = [f"{cell['task']}\n{cell['scale']:g}" for cell in summary]
    ax.set_xticks(range(len(summary)), names, size=11)
    runs = f"± standard error of {summary[0]['n']} runs"
    ax.set(ylabel="% of the allocation explained", xlabel=f"scale of the gate's start\n({runs})")
    ax.set(ylim=(-15, 125), yticks=range(0, 101, 25))


def make(job: Job) -> str:
    """Run the questions and draw them; return their section of the report."""
    import matplotlib.pyplot as plt

    result = why_it_works.run(sweep=job.sweep, quick=job.quick, only=QUESTIONS)
    summaries = {name: answer["summary"] for name, answer in result["questions"].items()}
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(18, 5.6))
        fig.get_layout_engine().set(w_pad=0.15)
        learning(axes[0], summaries["time"])
        counts(axes[1], summaries["random"])
        explained(axes[2], summaries["start"])
        job.save(fig, "why_allocation")
    return f"![who takes what](why_allocation.png)\n\n{why_it_works.report(result)}"
