"""Ways to train the same mixture: how fast the loss falls (top), and what each start ends as
(bottom).

What to see: no method is best on all three problems. EM is at the bottom of the pieces within a
hundred passes, where gradients stop half-way in some runs and clusters of x alone mislead in all;
on the patches it fits the training data as well as the rest, and generalises less well than joint
training. Evolution needs ten times the passes.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.training_methods import experiment

TITLE = "Ways to train a mixture, and what articles say of them"
ORDER = 135
LOOKS = {
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


def curves(ax, result, problem):
    """Median loss over the starts against passes, and the level; curves end where their budget
    does.
    """
    found = result["summary"][problem]
    for system, (colour, style) in LOOKS.items():
        losses = np.median([run["losses"] for run in result["systems"][problem][system]], axis=0)
        ax.plot(
            result["checkpoints"][system],
            losses,
            style,
            color=colour,
            linewidth=2.4 if style == "-" else 2.8,
        )
    ax.axhline(found["level"], color=plots.GREY, linewidth=1, linestyle="--", zorder=0)
    span = found["alone"] - found["best"]
    ax.set(
        xscale="log",
        xlabel="passes over the data",
        ylim=(found["best"] - 0.04 * span, found["alone"] + 0.25 * span),
    )
    ax.set_title(problem, fontsize=18, weight="bold")
    ends = ax.get_xlim()
    plots.label(ax, ends[1], found["level"], "level ", plots.GREY, size=11, ha="right", va="bottom")


def ends(ax, result, problem, names):
    """A row a method: the test quality of every start, crosses for failed ones, and their median."""
    found, jitter = result["summary"][problem], np.random.default_rng(0)
    for row, (system, (colour, _)) in enumerate(LOOKS.items()):
        quality = np.array([run["quality"] for run in result["systems"][problem][system]])
        height = row + jitter.uniform(-0.22, 0.22, len(quality))
        bad = quality < found["failure"]
        shown = np.maximum(quality, -20)
        ax.scatter(shown[~bad], height[~bad], s=26, color=colour, alpha=0.55, linewidths=0)
        ax.scatter(shown[bad], height[bad], s=26, color=colour, alpha=0.7, marker="x")
        ax.plot([np.median(shown)] * 2, [row - 0.36, row + 0.36], color=colour, linewidth=3)
    words = [system + (" (dotted)" if style == ":" else "") for system, (_, style) in LOOKS.items()]
    ax.set_yticks(range(len(LOOKS)), words if names else [""] * len(LOOKS))
    for tick, (colour, _) in zip(ax.get_yticklabels(), LOOKS.values(), strict=True):
        tick.set_color(colour)
    ax.tick_params(axis="y", length=0)
    ax.set(
        ylim=(len(LOOKS) - 0.5, -0.5),
        xlabel=f"test data: {result['measures'][problem]} (×: failed)",
    )


def draw(fig, result):
    axes = fig.subplots(2, len(experiment.PROBLEMS))
    for column, problem in enumerate(experiment.PROBLEMS):
        curves(axes[0, column], result, problem)
        ends(axes[1, column], result, problem, column == 0)
    axes[0, 0].set_ylabel("loss (median start)")
    return axes


def specs(job):
    return experiment.run_one, experiment.plan(quick=job.quick)[2]


def make(job):
    import matplotlib.pyplot as plt

    result = experiment.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig = plt.figure(figsize=(18, 10.5))
        draw(fig, result)
        job.save(fig, "training_methods")
    return (
        "![loss against passes, and what the starts end as](training_methods.png)\n\n"
        + experiment.table(result)
    )
