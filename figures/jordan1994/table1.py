"""Tables 1 and 2 of Jordan and Jacobs (1994) on a surrogate of their robot arm: the relative error
of every learner.

What to see: trees of linear experts are far below the linear map and below CART, as published; the
net, batch or on-line, is lowest of all, as published, and by more. The linear row was calibrated
and is no evidence.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.jordan1994 import experiment
from moe_np.experiments.jordan1994.report import explore_table, report
from moe_np.experiments.jordan1994.runs import BATCH, explore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Jordan and Jacobs 1994, Tables 1 and 2: a robot arm (a surrogate of theirs)"
ORDER = 125
COLOURS = {
    "HME": plots.BLUE,
    "backprop": plots.ORANGE,
    "CART": plots.GREEN,
    "linear": plots.GREY,
}


def colour_of(system: str) -> str:
    """One colour per kind of learner."""
    return next(colour for name, colour in COLOURS.items() if system.startswith(name))


def draw(ax: "Axes", result: Result) -> None:
    """A row per system: each run, mean and standard deviation, and the published error."""
    published = {**result["paper"]["table1"], **result["paper"]["table2"]}
    jitter = np.random.default_rng(0)
    names = [system for system in experiment.SYSTEMS if "skipped" not in result["summary"][system]]
    for row, system in enumerate(names):
        errors = np.array([run["error"] for run in result["systems"][system]])
        colour = colour_of(system)
        dots = {"s": 26, "c": colour, "alpha": 0.5, "linewidths": 0}
        ax.scatter(errors, row + jitter.uniform(-0.1, 0.1, len(errors)), **dots)
        ours = result["summary"][system]["error"]
        mark = {"fmt": "o", "color": colour, "markersize": 8, "capsize": 4, "linewidth": 2}
        ax.errorbar(ours["mean"], row - 0.25, xerr=ours["sd"], **mark)
        ax.plot(published[system][0], row + 0.25, "D", color=plots.BLACK, markersize=7)
    last = max(row for row, name in enumerate(names) if name in BATCH)
    ax.axhline(last + 0.5, color=plots.GREY, linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 0.36))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("relative error on the test set")
    for word, system in (("batch", "backprop"), ("on-line", "backprop, on-line")):
        plots.label(ax, 0.355, names.index(system), word, plots.GREY, ha="right", size=15)
    plots.label(ax, 0.298, -0.25, "calibrated: no evidence", plots.GREY, ha="right")
    row = names.index("CART, linear")
    plots.label(ax, 0.21, row - 0.25, "ours: mean, SD, one dot per seed", plots.GREEN, ha="left")
    plots.label(ax, 0.21, row + 0.25, "published, with another arm", ha="left")


def specs(job: Job) -> tuple[Callable[[Spec], Result], list[Spec]]:
    """The runs that can be started before this script is made."""
    return experiment.run_one, experiment.specs(quick=job.quick)


def make(job: Job) -> str:
    """Run the experiment and draw its tables; return its section of the report."""
    import matplotlib.pyplot as plt

    result = experiment.run(sweep=job.sweep, quick=job.quick, sensitivity=job.full)
    with plots.style():
        fig, ax = plt.subplots(figsize=(9.5, 6.5))
        draw(ax, result)
        job.save(fig, "jordan1994_table1")
    parts = ["![relative errors](jordan1994_table1.png)", report(result)]
    if job.full:
        config = experiment.Config()
        parts.append("**Learning rates.** " + explore_table(explore(config, job.sweep), config))
    return "\n\n".join(parts)
