"""Every router on one task: how much it remembers against how evenly it uses its experts.

What to see: good routers are found at any CV below .4, so balance is not quality here. What costs
most is a router that sends a key to another expert each time: by noise, by sampling, or because the
choice depends on the other keys. The dashed lines are the CVs of a choice at random.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import router_zoo
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.router_zoo.experiment import by_chance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "The router zoo: every router on the same associative memory"
ORDER = 100
TIMED = True
# colour and marker of each group of systems
STYLES = {
    "learned, one token at a time": (plots.BLUE, "o"),
    "experts choose, or are filled": (plots.GREEN, "s"),
    "not learned by gradient": (plots.AMBER, "D"),
    "choice by chance": (plots.ORANGE, "^"),
    "no routing": (plots.GREY, "v"),
}
# the systems of the first group are not listed
GROUPS = {
    "strictly balanced": "experts choose, or are filled",
    "expert choice": "experts choose, or are filled",
    "BASE": "experts choose, or are filled",
    "hash": "not learned by gradient",
    "k-means": "not learned by gradient",
    "noisy top-2": "choice by chance",
    "REINFORCE": "choice by chance",
    "straight-through": "choice by chance",
    "dense net, same active size": "no routing",
    "dense net, same total size": "no routing",
    "soft mixture": "no routing",
}


def style_of(system: str) -> tuple[str, str]:
    """Colour and marker of a system."""
    return STYLES[GROUPS.get(system, "learned, one token at a time")]


def draw(ax: "Axes", result: Result) -> None:
    """One mark per router; its name at the right, in order of quality, with a line to the mark."""
    ordered = sorted(result["summary"].items(), key=lambda item: item[1]["perplexity"]["mean"])
    low = ordered[0][1]["perplexity"]["mean"] / 1.2
    high = result["config"]["n_values"] * 1.1
    ax.set_yscale("log")
    ax.set_ylim(high, low)  # better is up
    heights = np.exp(np.linspace(np.log(low * 1.04), np.log(high / 1.04), len(ordered)))
    right = max(values["cv"]["mean"] for _, values in ordered if "cv" in values) * 1.12
    for height, (system, values) in zip(heights, ordered, strict=True):
        draw_system(ax, system, values, right, height)
    lines = ((2, "two experts\nby chance ", "right"), (1, " one expert\n by chance", "left"))
    for k, text, side in lines:
        x = by_chance(result["config"], k)
        ax.axvline(x, color=plots.GREY, linewidth=1, linestyle="--", zorder=0)
        plots.label(ax, x, high / 1.15, text, plots.GREY, size=10, ha=side)
    ax.set_xlim(-0.02, right)
    ticks = [t for t in (1, 2, 4, 8, 16, 32, 64) if low < t < high]
    ax.set_yticks(ticks, ticks)
    ax.minorticks_off()
    ax.set(xlabel="CV of the load in a batch (0: even)", ylabel="perplexity of the stored keys")


def draw_system(ax: "Axes", system: str, values: Result, right: float, height: float) -> None:
    """The mark of one system with its deviations, and its name at (right, height)."""
    colour, marker = style_of(system)
    y = values["perplexity"]
    x = values.get("cv", {"mean": 0, "sd": 0})
    bars = {"color": colour, "markersize": 9, "capsize": 0, "zorder": 3}
    ax.errorbar(x["mean"], y["mean"], y["sd"], x["sd"], fmt=marker, **bars)
    line = {"color": colour, "linewidth": 0.7, "alpha": 0.5, "zorder": 1}
    ax.plot([x["mean"], right], [y["mean"], height], **line)
    text = f"{system}  {y['mean']:.1f}"
    ax.text(right * 1.01, height, text, color=colour, va="center", fontsize=12)


def draw_legend(ax: "Axes") -> None:
    """The groups of systems, in two lines above the picture."""
    for i, (text, (colour, marker)) in enumerate(STYLES.items()):
        x = 0.01 + 0.46 * (i % 3)
        y = 1.075 - 0.045 * (i // 3)
        ax.plot(x, y, marker, color=colour, markersize=8, transform=ax.transAxes, clip_on=False)
        ax.text(x + 0.02, y, text, color=colour, va="center", fontsize=12, transform=ax.transAxes)


def specs(job: Job) -> tuple[Callable[[Spec], Result], list[Spec]]:
    """The function and the specs of the runs that the figure needs."""
    return router_zoo.run_one, router_zoo.specs(quick=job.quick)


def make(job: Job) -> str:
    """Run the experiment and draw it; return its section of the report."""
    import matplotlib.pyplot as plt

    result = router_zoo.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, ax = plt.subplots(figsize=(12, 8))
        draw(ax, result)
        draw_legend(ax)
        job.save(fig, "router_zoo")
    return "![quality against balance](router_zoo.png)\n\n" + router_zoo.report(result)
