"""Ways to train the same mixture: how the loss falls (top), and where each run ends (bottom).

What to see: at the top how soon the median run of each method comes to the level, the dashed line,
or does not; at the bottom how far its runs lie from each other, and those that end far below the
others. What follows for the sentences of articles stands in the table of claims.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import training_methods
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.training_methods.runs import PROBLEMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Ways to train a mixture, and what articles say of them"
ORDER = 135
TIMED = True
LOOKS = {  # colour and line
    "one expert": (plots.GREY, "-"),
    "joint": (plots.BLUE, "-"),
    "alternating": (plots.SKY, "-"),
    "separate": (plots.GREEN, "-"),
    "separate, true regions": (plots.GREEN, ":"),
    "EM": (plots.ORANGE, "-"),
    "straight-through": (plots.PINK, "-"),
    "REINFORCE": (plots.PINK, ":"),
    "evolution strategy": (plots.AMBER, "-"),
    "CMA-ES": (plots.BLACK, "-"),
    "CMA-ES, 10 times": (plots.BLACK, ":"),
}
LEAST_QUALITY = -20  # a run below it is drawn there


def curves(ax: "Axes", result: Result, problem: str) -> None:
    """Median loss of the runs against passes, to the end of the budget, and the level."""
    summary = result["summary"][problem]
    for system, (colour, line) in LOOKS.items():
        losses = np.median([run["losses"] for run in result["systems"][problem][system]], axis=0)
        width = 2.4 if line == "-" else 2.8
        ax.plot(result["checkpoints"][system], losses, line, color=colour, linewidth=width)
    level = summary["level"]
    ax.axhline(level, color=plots.GREY, linewidth=1, linestyle="--", zorder=0)
    span = summary["alone"] - summary["best"]
    limits = (summary["best"] - 0.04 * span, summary["alone"] + 0.25 * span)
    ax.set(xscale="log", xlabel="passes over the data", ylim=limits)
    ax.set_title(problem, fontsize=18, weight="bold")
    right = ax.get_xlim()[1]
    plots.label(ax, right, level, "level ", plots.GREY, size=11, ha="right", va="bottom")


def ends(ax: "Axes", result: Result, problem: str, names: bool) -> None:
    """One row per method: test quality of each run (crosses: failed), and the median."""
    failure = result["summary"][problem]["failure"]
    jitter = np.random.default_rng(0)
    for row, (system, (colour, _)) in enumerate(LOOKS.items()):
        quality = np.array([run["quality"] for run in result["systems"][problem][system]])
        height = row + jitter.uniform(-0.22, 0.22, len(quality))
        failed = quality < failure
        shown = np.maximum(quality, LEAST_QUALITY)
        ax.scatter(shown[~failed], height[~failed], s=26, color=colour, alpha=0.55, linewidths=0)
        ax.scatter(shown[failed], height[failed], s=26, color=colour, alpha=0.7, marker="x")
        ax.plot([np.median(shown)] * 2, [row - 0.36, row + 0.36], color=colour, linewidth=3)
    words = [system + (" (dotted)" if line == ":" else "") for system, (_, line) in LOOKS.items()]
    ax.set_yticks(range(len(LOOKS)), words if names else [""] * len(LOOKS))
    for tick, (colour, _) in zip(ax.get_yticklabels(), LOOKS.values(), strict=True):
        tick.set_color(colour)
    ax.tick_params(axis="y", length=0)
    ax.set(ylim=(len(LOOKS) - 0.5, -0.5))
    ax.set(xlabel=f"test data: {result['measures'][problem]} (×: failed)")


def draw(fig: "Figure", result: Result) -> np.ndarray:
    """Curves and ends of all problems; returns the axes (2, problems)."""
    axes = fig.subplots(2, len(PROBLEMS))
    for column, problem in enumerate(PROBLEMS):
        curves(axes[0, column], result, problem)
        ends(axes[1, column], result, problem, column == 0)
    axes[0, 0].set_ylabel("loss (median run)")
    return axes


def specs(job: Job) -> tuple[Callable[[Spec], Result], list[Spec]]:
    """The runs of `make`."""
    return training_methods.run_one, training_methods.specs(quick=job.quick)


def make(job: Job) -> str:
    """Run the experiment and draw it; return its section of the report."""
    import matplotlib.pyplot as plt

    result = training_methods.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig = plt.figure(figsize=(18, 10.5))
        draw(fig, result)
        job.save(fig, "training_methods")
    picture = "![loss against passes, and where the runs end](training_methods.png)"
    return f"{picture}\n\n{training_methods.report(result)}"
