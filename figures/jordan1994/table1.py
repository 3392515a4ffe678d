"""Tables 1 and 2 of Jordan and Jacobs (1994) on a surrogate of their robot arm: relative error of
every learner.

What to see: trees of linear experts are far below the linear map and below CART, as published; the
net, batch or on-line, is lowest of all, as published, and by more. The linear row was calibrated
and is no evidence.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.jordan1994 import experiment as robot

TITLE = "Jordan and Jacobs 1994, Tables 1 and 2: a robot arm (a surrogate of theirs)"
ORDER = 125


def colour(system):
    kinds = {"HME": plots.BLUE, "backprop": plots.ORANGE, "CART": plots.GREEN, "linear": plots.GREY}
    return next(c for name, c in kinds.items() if system.startswith(name))


def draw(ax, result):
    published = {**result["paper"]["table1"], **result["paper"]["table2"]}
    jitter = np.random.default_rng(0)
    names = [s for s in robot.SYSTEMS if "skipped" not in result["summary"][s]]
    for row, system in enumerate(names):
        own = np.array([run["error"] for run in result["systems"][system]])
        dots = {"s": 26, "c": colour(system), "alpha": 0.5, "linewidths": 0}
        ax.scatter(own, row + jitter.uniform(-0.1, 0.1, len(own)), **dots)
        mean = result["summary"][system]["error"]
        mark = {"fmt": "o", "color": colour(system), "markersize": 8, "capsize": 4, "linewidth": 2}
        ax.errorbar(mean["mean"], row - 0.25, xerr=mean["sd"], **mark)
        ax.plot(published[system][0], row + 0.25, "D", color=plots.BLACK, markersize=7)
    last = max(i for i, name in enumerate(names) if name in robot.BATCH)
    ax.axhline(last + 0.5, color=plots.GREY, linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 0.36)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("relative error on the test set")
    for word, row in (
        ("batch", names.index("backprop")),
        ("on-line", names.index("backprop, on-line")),
    ):
        plots.label(ax, 0.355, row, word, plots.GREY, ha="right", size=15)
    plots.label(ax, 0.298, -0.25, "calibrated: no evidence", plots.GREY, ha="right")
    key = names.index("CART, linear")
    plots.label(ax, 0.21, key - 0.25, "ours: mean, SD, a dot a seed", plots.GREEN, ha="left")
    plots.label(ax, 0.21, key + 0.25, "published, with another arm", ha="left")


def specs(job):
    return robot.run_one, robot.plan(quick=job.quick)[2]


def make(job):
    import matplotlib.pyplot as plt

    result = robot.run(sweep=job.sweep, quick=job.quick, sensitivity=job.full)
    with plots.style():
        fig, ax = plt.subplots(figsize=(9.5, 6.5))
        draw(ax, result)
        job.save(fig, "jordan1994_table1")
    parts = ["![relative errors](jordan1994_table1.png)", robot.table(result)]
    if job.full:
        config = robot.Config()
        parts.append(
            "**Step sizes.** " + robot.explore_table(robot.explore(config, job.sweep), config)
        )
    return "\n\n".join(parts)
