"""Fig. 2 of Chen et al. (2022): dispatch entropy along training, settings 1 and 2, mean and 95 %
interval over ten runs.

What to see: both kinds begin at ln 4, where every expert gets all four clusters alike. Cubic
experts divide the clusters among themselves within about a hundred passes; linear experts hardly do
so, though they learn the task better than a single network.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import numpy as np
from scipy import stats

from figures import Job
from moe_np import plots
from moe_np.experiments import chen2022
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import markdown_table, mean_sd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Chen et al. 2022, Fig. 2: dispatch entropy along training"
ORDER = 45
SETTINGS = (1, 2)
MODELS = {
    "moe_linear": (plots.ORANGE, "linear experts"),
    "moe_nonlinear": (plots.BLUE, "cubic experts"),
}
ABOVE = {"moe_linear": -0.14, "moe_nonlinear": 0.14}  # where a label lies, from its curve

Passes: TypeAlias = Annotated[np.ndarray, "passes"]


def curves(runs: Sequence[list[float]]) -> Annotated[np.ndarray, "runs, passes"]:
    """The entropy of every run and pass; a run that the stop rule ended keeps its last value."""
    length = max(map(len, runs))
    return np.array([run + run[-1:] * (length - len(run)) for run in runs])


def band(values: Annotated[np.ndarray, "runs, passes"]) -> tuple[Passes, Passes]:
    """Mean over runs, and half the width of its 95 % interval (Student's t)."""
    n = len(values)
    if n == 1:
        return values[0], 0 * values[0]
    error = values.std(axis=0, ddof=1) / math.sqrt(n)
    return values.mean(axis=0), stats.t.ppf(0.975, n - 1) * error


def draw(ax: "Axes", result: Result) -> None:
    """Mean and interval of both kinds of experts, in one setting."""
    for model, (colour, name) in MODELS.items():
        mean, half = band(curves(result["models"][model]["entropy_per_epoch"]))
        passes = np.arange(len(mean))
        ax.fill_between(passes, mean - half, mean + half, color=colour, alpha=0.25, linewidth=0)
        ax.plot(passes, mean, color=colour, linewidth=2.5)
        x = int(0.62 * len(mean))
        plots.label(ax, x, mean[x] + ABOVE[model], name, colour, size=15, weight="bold")
    ax.axhline(math.log(4), color=plots.GREY, linewidth=1, linestyle=":")
    ax.set(title=f"setting {result['setting']}", xlabel="pass", xlim=(0, None), ylim=(0, 1.5))


def specs(job: Job) -> tuple:
    """(run_one, the runs of both settings)."""
    options = {"only": tuple(MODELS), "quick": job.quick}
    plans = [chen2022.specs(setting=setting, **options) for setting in SETTINGS]
    return chen2022.run_one, [spec for plan in plans for spec in plan]


def make(job: Job) -> str:
    """Run both settings and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    options = {"only": tuple(MODELS), "sweep": job.sweep, "quick": job.quick}
    results = [chen2022.run(setting=setting, **options) for setting in SETTINGS]
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
        for ax, result in zip(axes, results, strict=True):
            draw(ax, result)
        axes[0].set_ylabel("dispatch entropy (nats)")
        text = "ln 4: all experts get all clusters alike"
        plots.label(axes[0], 8, math.log(4) + 0.06, text, plots.GREY, size=11, ha="left")
        job.save(fig, "chen2022_fig2")
    rows = [
        (
            result["setting"],
            name,
            mean_sd(result["summary"][model]["entropy"], 3),
            mean_sd(result["paper"][model]["entropy"], 3),
        )
        for result in results
        for model, (_, name) in MODELS.items()
    ]
    parts = [
        "![entropy along training](chen2022_fig2.png)",
        f"Variant `code`, {len(results[0]['seeds'])} runs: mean and 95 % interval of the mean "
        "(Student's t). Entropy of the training samples as the noisy router sent them; a run that "
        "the stop rule has ended keeps its last value. The published curves (500 passes) come from "
        "other notebooks, which divide each array by its own norm and draw the routing noise once; "
        "here are the algorithm and the runs of Table 1. At the last pass, mean ± population "
        "standard deviation:",
        markdown_table(("setting", "experts", "ours", "published, Table 1 (second-hand)"), rows),
    ]
    return "\n\n".join(parts)
