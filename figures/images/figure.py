"""Digits: dense beside mixture on three tasks, who takes what, and digits drawn pixel by pixel.

What to see: left, whether the mixture (blue) lies above the dense network of equal operations and
above that of equal size; a point is a seed. Middle, which expert takes which rotation and which
digit, first seed. Right, digits that the decoder with experts draws, pixel after pixel.
"""

from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.common.dense_and_mixture import MIXTURE, MODELS
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.images.digit_images import FOUR, TASKS
from moe_np.experiments.images.experiment import run
from moe_np.experiments.images.report import report
from moe_np.experiments.images.runs import PIXELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Images: digits, rotated digits, and digits drawn pixel by pixel"
ORDER = 410
NEEDS = {"sklearn": "estimators"}
COLOURS = dict(zip(MODELS, (plots.GREY, plots.BLUE, plots.ORANGE), strict=True))


def accuracies(ax: "Axes", runs: list[Result]) -> None:
    """A row per task; a point per seed and model."""
    for row, task in enumerate(TASKS):
        for shift, (model, colour) in zip((-0.2, 0, 0.2), COLOURS.items(), strict=True):
            right = [r["accuracy"] for r in runs if r["system"] == f"{task}: {model}"]
            label = model if row == 0 else None
            ax.plot(right, np.full(len(right), row + shift), "o", color=colour, label=label)
    ax.set_yticks(range(len(TASKS)), [task.replace(" in ", "\nin ") for task in TASKS])
    ax.set_ylim(len(TASKS) - 0.5, -0.5)
    ax.set(xlabel="percent right", title="Test images")
    ax.legend(fontsize=10, loc="center left")


def taken(ax: "Axes", runs: list[Result], task: str) -> None:
    """The share of every rotation and every digit that each expert takes."""
    first = next(r for r in runs if r["system"] == f"{task}: {MIXTURE}")
    tables = [np.array(first["counts"][name]) for name in ("rotation", "digit")]
    shares = np.concatenate([100 * t / np.maximum(t.sum(axis=0), 1) for t in tables], axis=1).T
    image = ax.imshow(shares, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="percent")
    turns = [f"{90 * turn}°" for turn in range(tables[0].shape[1])]
    ax.set_yticks(range(len(shares)), [*turns, *map(str, range(tables[1].shape[1]))], fontsize=10)
    ax.axhline(len(turns) - 0.5, color="white", linewidth=2)
    ax.set(xlabel="expert", ylabel="digit, and above it rotation", title="Who takes what")


def drawn(ax: "Axes", runs: list[Result]) -> None:
    """The digits that the mixture of seed 0 draws, a row per digit."""
    first = next(r for r in runs if r["system"] == f"{PIXELS}: {MIXTURE}" and "samples" in r)
    samples = np.pad(np.array(first["samples"]), ((0, 0), (0, 0), (1, 1), (1, 1)))
    columns = np.concatenate(np.concatenate(np.split(samples, 2), axis=1), axis=1)
    ax.imshow(np.concatenate(list(columns), axis=1), cmap="gray_r")
    ax.set_yticks(5 + 10 * np.arange(5), [f"{row} and {row + 5}" for row in range(5)], fontsize=10)
    ax.set(xticks=[], ylabel="digit: left and right half", title="Drawn pixel by pixel")


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(16, 5), width_ratios=(4, 3, 3))
        accuracies(axes[0], result["runs"])
        taken(axes[1], result["runs"], FOUR)
        drawn(axes[2], result["runs"])
        job.save(fig, "images")
    return "![images](images.png)\n\n" + report(result)
