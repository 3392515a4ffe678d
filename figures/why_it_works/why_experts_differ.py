"""What keeps experts from becoming equal, and which error makes them cooperate or compete.

What to see: left, experts that begin 1e-8 apart. While the gate learns (solid) their difference
grows by equal factors until they part; with the gate held undecided (dashed) eq. 2 and eq. 3 draw
them together. Equal experts (not on a log axis) stay equal to the last bit. Right, a regression of
four regions: the share of the experts' own errors that averaging cancels. Under eq. 1 experts rely
on each other's errors; under eq. 2 and eq. 3 each answers alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import why_it_works
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.why_it_works.tasks import EQUATIONS
from moe_np.experiments.why_it_works.why_experts_differ import EVERY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Why it works: what keeps experts apart"
ORDER = 150
QUESTIONS = ("equal", "errors")
COLOURS = {"cooperative": plots.ORANGE, "competitive": plots.GREEN, "mixture": plots.BLUE}


def curves(ax: "Axes", summary: Sequence[Result]) -> None:
    """The largest difference between experts against epochs, from 1e-8 apart."""
    for cell in summary:
        if cell["start"] == "1e-8 apart":
            epochs = EVERY * np.arange(len(cell["curve"]))
            line, width = ("-", 3) if cell["gate learns"] else ("--", 2)
            ax.plot(epochs, cell["curve"], line, color=COLOURS[cell["error"]], linewidth=width)
    text = {"transform": ax.transAxes, "weight": "bold", "size": 15, "va": "top"}
    for i, (error, colour) in enumerate(COLOURS.items()):
        ax.text(0.03, 0.96 - 0.07 * i, EQUATIONS[error], color=colour, **text)
    text = {"transform": ax.transAxes, "ha": "right", "size": 12, "color": plots.GREY}
    ax.text(0.97, 0.22, "dashed: gate held at ¼", **text)
    ax.set(yscale="log", xlabel="epoch", ylabel="largest difference between experts")


def cancelled(ax: "Axes", summary: Sequence[Result]) -> None:
    """What averaging cancels on the regression: one dot per run, a bar at the mean."""
    jitter = np.random.default_rng(0)
    cells = [cell for cell in summary if cell["task"] == "regression"]
    for i, cell in enumerate(cells):
        values = 100 * np.array(cell["cancels"])
        colour = COLOURS[cell["error"]]
        x = i + jitter.uniform(-0.14, 0.14, len(values))
        ax.scatter(x, values, s=34, color=colour, alpha=0.6, linewidths=0)
        ax.plot([i - 0.3, i + 0.3], [values.mean()] * 2, color=colour, linewidth=4)
    names = [f"{EQUATIONS[cell['error']]}\n{cell['error']}" for cell in cells]
    ax.set_xticks(range(len(cells)), names)
    ax.set_ylabel("% of the experts' own errors that averaging cancels")
    ax.set(ylim=(-4, 104), xlim=(-0.5, len(cells) - 0.5))


def make(job: Job) -> str:
    """Run the questions and draw them; return their section of the report."""
    import matplotlib.pyplot as plt

    result = why_it_works.run(sweep=job.sweep, quick=job.quick, only=QUESTIONS)
    summaries = {name: answer["summary"] for name, answer in result["questions"].items()}
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(14, 5.8))
        curves(axes[0], summaries["equal"])
        cancelled(axes[1], summaries["errors"])
        job.save(fig, "why_apart")
    return f"![experts apart](why_apart.png)\n\n{why_it_works.report(result)}"
