"""Who takes what: when it is decided, whether by chance, and whether the gate's start decides.

What to see: left, what the choice of the expert tells about the region, against the share of the
training that is done (median and the middle four fifths of the runs): nothing for a while, then
nearly all; on the vowels the gate goes back and forth before it settles. Middle: how many of all
runs each of eight experts took each region; the dashed line is what chance gives. Right: how much
of the allocation stays when only the experts' start, only the gate's, or only the noise of the
routing is kept.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.why_it_works import experiment as why
from moe_np.experiments.why_it_works import who_gets_what as allocation

TITLE = "Why it works: who specialises in what"
ORDER = 155
QUESTIONS = ("time", "random", "start")
TASKS = {"vowels": plots.BLUE, "patches": plots.ORANGE}
KEPT = {"experts": plots.GREEN, "gate": plots.BLUE, "noise": plots.GREY}


def learning(ax, summary):
    share = np.linspace(0, 100, 101)
    for c in summary:
        curves = [
            np.interp(share, np.linspace(0, 100, len(own)), own) / own[-1]
            for own in c["curves"]
            if own[-1] > 0
        ]
        low, middle, high = np.quantile(curves, (0.1, 0.5, 0.9), axis=0)
        ax.fill_between(share, low, high, color=TASKS[c["task"]], alpha=0.2, linewidth=0)
        ax.plot(share, middle, color=TASKS[c["task"]], linewidth=3)
    ax.text(
        0.97,
        0.16,
        "vowels, 2 regions",
        color=plots.BLUE,
        transform=ax.transAxes,
        ha="right",
        weight="bold",
    )
    ax.text(
        0.97,
        0.08,
        "patches, 4 clusters",
        color=plots.ORANGE,
        transform=ax.transAxes,
        ha="right",
        weight="bold",
    )
    ax.set(
        xlabel="% of the epochs",
        ylabel="bits about the region / those in the end",
        ylim=(0, 1.15),
        xlim=(0, 100),
    )


def counts(ax, summary):
    """A group of bars a region, a bar an expert."""
    place, ticks = 0.0, []
    for c in summary[:-1]:
        for region, own in zip(allocation.REGIONS[c["task"]], c["counts"], strict=True):
            ax.bar(place + 0.1 * np.arange(len(own)), own, 0.09, color=TASKS[c["task"]])
            ax.plot(
                [place - 0.07, place + 0.77],
                [c["n"] / len(own)] * 2,
                color=plots.BLACK,
                linestyle="--",
                linewidth=1.2,
            )
            ticks.append((place + 0.35, region.replace("cluster ", "cluster\n")))
            place += 1.1
    ax.set_xticks(*zip(*ticks, strict=True), size=11)
    ax.set(ylabel=f"runs of {summary[0]['n']} in which expert 1, 2, ... took it")


def explained(ax, summary):
    groups, width = len(summary), 0.26
    for i, c in enumerate(summary):
        for j, (kept, colour) in enumerate(KEPT.items()):
            if kept in c["explained"]:
                ax.bar(
                    i + (j - 1) * width,
                    100 * c["explained"][kept],
                    width * 0.9,
                    color=colour,
                    yerr=100 * c["se"][kept],
                )
    for j, (kept, colour) in enumerate(KEPT.items()):
        words = (
            "only the noise kept"
            if kept == "noise"
            else f"only the {kept}' start kept".replace("gate'", "gate's")
        )
        ax.text(
            0.02,
            0.97 - 0.07 * j,
            words,
            color=colour,
            transform=ax.transAxes,
            weight="bold",
            va="top",
        )
    ax.axhline(0, color=plots.BLACK, linewidth=1)
    ax.set_xticks(range(groups), [f"{c['task']}\n{c['scale']:g}" for c in summary], size=11)
    ax.set(
        ylabel="% of the allocation explained",
        ylim=(-15, 125),
        xlabel="scale of the gate's start",
        yticks=range(0, 101, 25),
    )


def make(job):
    import matplotlib.pyplot as plt

    result = why.run(sweep=job.sweep, quick=job.quick, questions=QUESTIONS)
    found = {name: one["summary"] for name, one in result["questions"].items()}
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(18, 5.6))
        fig.get_layout_engine().set(w_pad=0.15)
        learning(axes[0], found["time"])
        counts(axes[1], found["random"])
        explained(axes[2], found["start"])
        job.save(fig, "why_allocation")
    return "![who takes what](why_allocation.png)\n\n" + why.table(result)
