"""Breast cancer and diabetes: the loss of every method, and whether its probabilities are right.

What to see: left, the loss of each fold (points) and the mean; the mixtures are the two
rows on top. Right, reliability: of the cases with a predicted probability p a share p should be
malignant, and a share p of the diabetes targets should lie below the quantile p: the diagonal.
"""

from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.health.experiment import run
from moe_np.experiments.health.methods import CANCER, DATA, METHODS
from moe_np.experiments.health.report import report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Health: breast cancer and diabetes, with calibration"
ORDER = 440
NEEDS = {"sklearn": "estimators"}
AT_LEAST = 8  # cases in a bin that is drawn


def losses(ax: "Axes", runs: list[Result], data: str) -> None:
    """A row per method, a point per fold."""
    for row, method in enumerate(METHODS):
        values = [r["loss"] for r in runs if r["system"] == f"{data}: {method}"]
        ax.plot(values, np.full(len(values), row), "o", color=plots.COLOURS[row])
        ax.plot(np.mean(values), row, "|", color=plots.BLACK, markersize=18)
    ax.set_yticks(range(len(METHODS)), METHODS)
    ax.set_ylim(len(METHODS) - 0.5, -0.5)
    ax.set(xlabel="loss, nats per case", title=data.capitalize())


def reliability(ax: "Axes", summary: Result, data: str) -> None:
    """Predicted against seen, of all held-out cases together."""
    ax.plot([0, 1], [0, 1], color=plots.GREY, linewidth=1)
    for method, colour in zip(METHODS, plots.COLOURS, strict=False):
        ours = summary[f"{data}: {method}"]
        if data == CANCER:
            count, predicted, seen = map(np.array, ours["reliability"])
            kept = count >= AT_LEAST
            x, y = predicted[kept] / count[kept], seen[kept] / count[kept]
        else:
            x, y = np.linspace(0.1, 0.9, 9), ours["below quantile"]
        ax.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.2, label=method)
    label = "probability of malignant" if data == CANCER else "quantile"
    ax.set(xlabel=f"predicted {label}", ylabel="share that was seen", aspect="equal")


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(2, 2, figsize=(12, 9), width_ratios=(3, 2))
        for row, data in enumerate(DATA):
            losses(axes[row, 0], result["runs"], data)
            reliability(axes[row, 1], result["summary"], data)
        axes[0, 1].set_title("Reliability")
        axes[0, 1].legend(fontsize=9, loc="upper left")
        job.save(fig, "health")
    return "![health](health.png)\n\n" + report(result)
