"""How the experts of a decoder divide a text: neighbours, checkpoints, words and domains.

What to see: top left, whether neighbours share their first expert more often than the loads and
the words explain, and in which layers. Top right, when the router of each layer settles. Bottom
left, whether experts are chosen by the token or by what comes next; dotted, by chance. Bottom
right, which expert takes which domain, first seed.
"""

from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.specialisation.experiment import run
from moe_np.experiments.specialisation.measures import LABELS
from moe_np.experiments.specialisation.report import report
from moe_np.experiments.specialisation.runs import ONE, THREE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Specialisation: what the experts of a decoder take"
ORDER = 170
BASELINES = {  # name in the result: label, line
    "value": ("ours", "o-"),
    "by_tokens": ("by the words alone", "s--"),
    "by_loads": ("by the loads", ":"),
    "uniform": ("equal loads", "-"),
}


def repeated(ax: "Axes", ours: Result) -> None:
    """The repetition of the first choice per layer, with its baselines."""
    (kinds,) = ours["repetition"].values()
    colours = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.GREY)
    for (name, (label, line)), colour in zip(BASELINES.items(), colours, strict=True):
        percent = [100 * layer[name]["mean"] for layer in kinds["first"]]
        ax.plot(percent, line, color=colour, label=label)
    ax.set(xlabel="layer", ylabel="percent", title="Neighbours with the same first expert")
    ax.set(xticks=range(len(percent)))
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=10, loc="lower right")


def settled(ax: "Axes", ours: Result) -> None:
    """The saturation of each layer over training."""
    values = 100 * np.array([[value["mean"] for value in row] for row in ours["saturation"]])
    share = 100 * np.array(ours["steps"]) / ours["steps"][-1]
    for layer, column in enumerate(values.T):
        ax.plot(share, column, "o-", color=plots.COLOURS[layer % 8], label=f"layer {layer}")
    chance = 100 * float(np.mean([value["mean"] for value in ours["saturation by chance"]]))
    ax.axhline(chance, color=plots.GREY, linestyle=":", label="by chance")
    ax.set(xlabel="percent of training", ylabel="percent", title="Choices that stay to the end")
    ax.set_xlim(0, 103)
    ax.set_ylim(0, 103)
    ax.legend(fontsize=10)


def words_known(ax: "Axes", ours: Result) -> None:
    """Vocabulary specialisation per layer; by chance as dotted lines."""
    for label, colour in zip(LABELS, plots.COLOURS, strict=False):
        layers = ours["vocabulary"][label]
        value = [100 * layer["value"]["mean"] for layer in layers]
        chance = [100 * layer["permuted"]["mean"] for layer in layers]
        ax.plot(value, "o-", color=colour, label=f"{label} token")
        ax.plot(chance, ":", color=colour)
    ax.plot([], [], ":", color="grey", label="by chance")
    ax.set(xlabel="layer", ylabel="percent", title="Share of a token's commonest expert")
    ax.set(xticks=range(len(value)), yticks=range(0, 101, 20))
    ax.set_ylim(0, 130)  # room for the legend above the lines
    ax.legend(fontsize=10, ncols=2, loc="upper center")


def domains_taken(ax: "Axes", first: Result) -> None:
    """The share of each domain's tokens that each expert gets, layer below layer."""
    names = list(first["repetition"])
    shares = 100 * np.concatenate([layer["shares"] for layer in first["domains"]])
    image = ax.imshow(shares, cmap="viridis", vmin=0, aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="percent")
    rows = [f"{name}, layer {layer}" for layer in range(len(first["domains"])) for name in names]
    ax.set_yticks(range(len(rows)), rows, fontsize=9)
    ax.set(xticks=range(shares.shape[1]), xlabel="expert", title="Who takes what")
    for boundary in range(len(names), len(rows), len(names)):
        ax.axhline(boundary - 0.5, color="white", linewidth=2)


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    ours = result["summary"][ONE]
    with plots.style():
        fig, axes = plt.subplots(2, 2, figsize=(13, 9))
        repeated(axes[0, 0], ours)
        settled(axes[0, 1], ours)
        words_known(axes[1, 0], ours)
        domains_taken(axes[1, 1], next(r for r in result["runs"] if r["system"] == THREE))
        job.save(fig, "specialisation")
    return "![specialisation](specialisation.png)\n\n" + report(result)
