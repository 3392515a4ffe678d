"""What keeps experts from becoming equal, and which error makes them cooperate or compete.

What to see: left, experts that start 1e-8 apart. While the gate learns (solid) their difference
grows by equal factors until they part; with the gate held undecided (dashed) eq. 2 and eq. 3 draw
them together. Equal experts (not on a log axis) stay equal to the last bit. Right, a regression of
four regions: the share of the experts' own errors that averaging cancels. Under eq. 1 experts rely
on each other's errors; under eq. 2 and eq. 3 each answers alone.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.why_it_works import experiment as why
from moe_np.experiments.why_it_works import gate_collapse, why_experts_differ

TITLE = "Why it works: what keeps experts apart"
ORDER = 150
QUESTIONS = ("equal", "errors")
COLOURS = {"cooperative": plots.ORANGE, "competitive": plots.GREEN, "mixture": plots.BLUE}


def curves(ax, summary):
    for c in summary:
        if c["start"] == "1e-8 apart":
            epochs = why_experts_differ.EVERY * np.arange(len(c["curve"]))
            style = {
                "linestyle": "-" if c["gate learns"] else "--",
                "linewidth": 3 if c["gate learns"] else 2,
            }
            ax.plot(epochs, c["curve"], color=COLOURS[c["error"]], **style)
    for name, colour, height in zip(
        gate_collapse.EQUATIONS.values(), COLOURS.values(), (0.96, 0.89, 0.82), strict=True
    ):
        ax.text(
            0.03,
            height,
            name,
            color=colour,
            transform=ax.transAxes,
            weight="bold",
            size=15,
            va="top",
        )
    ax.text(
        0.97,
        0.22,
        "dashed: gate held at ¼",
        transform=ax.transAxes,
        ha="right",
        size=12,
        color=plots.GREY,
    )
    ax.set(yscale="log", xlabel="epoch", ylabel="largest difference between experts")


def cancelled(ax, summary):
    jitter = np.random.default_rng(0)
    own = [c for c in summary if c["task"] == "regression"]
    for i, c in enumerate(own):
        values, colour = 100 * np.array(c["cancels"]), COLOURS[c["error"]]
        ax.scatter(
            i + jitter.uniform(-0.14, 0.14, len(values)),
            values,
            s=34,
            color=colour,
            alpha=0.6,
            linewidths=0,
        )
        ax.plot([i - 0.3, i + 0.3], [values.mean()] * 2, color=colour, linewidth=4)
    ax.set_xticks(
        range(len(own)), [f"{gate_collapse.EQUATIONS[c['error']]}\n{c['error']}" for c in own]
    )
    ax.set(
        ylabel="% of the experts' own errors that averaging cancels",
        ylim=(-4, 104),
        xlim=(-0.5, len(own) - 0.5),
    )


def make(job):
    import matplotlib.pyplot as plt

    result = why.run(sweep=job.sweep, quick=job.quick, questions=QUESTIONS)
    found = {name: one["summary"] for name, one in result["questions"].items()}
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(14, 5.8))
        curves(axes[0], found["equal"])
        cancelled(axes[1], found["errors"])
        job.save(fig, "why_apart")
    return "![experts apart](why_apart.png)\n\n" + why.table(result)
