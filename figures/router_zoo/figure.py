"""Every router on one task: how much it remembers against how evenly it uses its experts.

What to see: good gates are found at any CV below .4, so balance is not quality here. What costs
most is a gate that sends a key to another expert each time: by noise, by sampling, or because the
choice depends on the company. Chance alone gives the CVs at the dashed lines.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.router_zoo import experiment as zoo

TITLE = "The router zoo: every router on the same associative memory"
ORDER = 100
KINDS = {
    "learned, one token at a time": (plots.BLUE, "o"),
    "experts choose, or are filled": (plots.GREEN, "s"),
    "not learned by gradient": (plots.AMBER, "D"),
    "choice by chance": (plots.ORANGE, "^"),
    "no routing": (plots.GREY, "v"),
}
KIND = {
    "strictly balanced": 1,
    "expert choice": 1,
    "BASE": 1,
    "hash": 2,
    "k-means": 2,
    "noisy top-2": 3,
    "REINFORCE": 3,
    "straight-through": 3,
    "dense net, same active size": 4,
    "dense net, same total size": 4,
    "soft mixture": 4,
}


def kind(system):
    return list(KINDS.values())[KIND.get(system, 0)]


def draw(ax, result):
    """A mark a router; its name at the right, in order of quality, with a thin line to the mark."""
    found = sorted(result["summary"].items(), key=lambda item: item[1]["perplexity"]["mean"])
    ax.set_yscale("log")
    low, high = found[0][1]["perplexity"]["mean"] / 1.2, result["config"]["n_values"] * 1.1
    ax.set_ylim(high, low)  # better is up
    places = np.exp(np.linspace(np.log(low * 1.04), np.log(high / 1.04), len(found)))
    right = max(one["cv"]["mean"] for _, one in found if "cv" in one) * 1.12
    for place, (system, one) in zip(places, found, strict=True):
        colour, marker = kind(system)
        y, x = one["perplexity"], one.get("cv", {"mean": 0, "sd": 0})
        ax.errorbar(
            x["mean"],
            y["mean"],
            y["sd"],
            x["sd"],
            fmt=marker,
            color=colour,
            markersize=9,
            capsize=0,
            zorder=3,
        )
        ax.plot(
            [x["mean"], right], [y["mean"], place], color=colour, linewidth=0.7, alpha=0.5, zorder=1
        )
        ax.text(
            right * 1.01,
            place,
            f"{system}  {y['mean']:.1f}",
            color=colour,
            va="center",
            fontsize=12,
        )
    for k, text, side in (
        (2, "two experts\nby chance ", "right"),
        (1, " one expert\n by chance", "left"),
    ):
        x = zoo.by_chance(result["config"], k)
        ax.axvline(x, color=plots.GREY, linewidth=1, linestyle="--", zorder=0)
        plots.label(ax, x, high / 1.15, text, plots.GREY, size=10, ha=side)
    ax.set_xlim(-0.02, right)
    ticks = [t for t in (1, 2, 4, 8, 16, 32, 64) if low < t < high]
    ax.set_yticks(ticks, ticks)
    ax.minorticks_off()
    ax.set(xlabel="CV of the load in a batch (0: even)", ylabel="perplexity of the stored keys")


def key(ax):
    """The kinds of gate, in two lines above the picture."""
    for i, (text, (colour, marker)) in enumerate(KINDS.items()):
        x, y = 0.01 + 0.46 * (i % 3), 1.075 - 0.045 * (i // 3)
        ax.plot(x, y, marker, color=colour, markersize=8, transform=ax.transAxes, clip_on=False)
        ax.text(x + 0.02, y, text, color=colour, va="center", fontsize=12, transform=ax.transAxes)


def specs(job):
    return zoo.run_one, zoo.plan(quick=job.quick)[2]


def make(job):
    import matplotlib.pyplot as plt

    result = zoo.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, ax = plt.subplots(figsize=(12, 8))
        draw(ax, result)
        key(ax)
        job.save(fig, "router_zoo")
    return "![quality against balance](router_zoo.png)\n\n" + zoo.table(result)
