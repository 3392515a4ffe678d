"""Why the gate does not send everything to one expert, and what it learns from one expert per case.

What to see: left, the gradient of a gate with a bias towards one expert, at the moment at which it
is let go after the experts were trained under it, and at 0 the largest of a usual run. Middle:
when training leaves the bias, and where it does not in the time given. Right: with k = 1 and
renormalised weights the router's gradient is exactly 0 and the router stays where it was; with the
weight left as it is the router learns from one expert per case.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import why_it_works
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.why_it_works.tasks import EQUATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Why it works: does the gate collapse?"
ORDER = 145
QUESTIONS = ("collapse", "k")
COLOURS = {"cooperative": plots.ORANGE, "competitive": plots.GREEN, "mixture": plots.BLUE}
AXIS = "bias of the gate at the beginning"


def gradients(ax: "Axes", summary: Sequence[Result]) -> None:
    """The length of the gate's gradient at its release against the bias, per error; without a bias
    the largest of the run.
    """
    for error, colour in COLOURS.items():
        cells = [cell for cell in summary if cell["kind"] == error]
        line = "o--" if error == "competitive" else "o-"  # it lies on eq. 1
        biases = [cell["bias"] for cell in cells]
        lengths = [cell["gate gradient"][0] for cell in cells]
        ax.plot(biases, lengths, line, color=colour, linewidth=2.5)
    text = {"transform": ax.transAxes, "ha": "right", "weight": "bold", "size": 15}
    for i, (error, colour) in enumerate(COLOURS.items()):
        ax.text(0.95, 0.95 - 0.07 * i, EQUATIONS[error], color=colour, **text)
    ax.set(yscale="log", xlabel=AXIS, xticks=biases)
    ax.set_ylabel(f"length of the gate's gradient (mean of {cells[0]['n']} runs)")


def escapes(ax: "Axes", summary: Sequence[Result], longest: int) -> None:
    """Epochs until a second expert is in use; a cross at the top where it never is."""
    for shift, (error, colour) in zip((-0.15, 0, 0.15), COLOURS.items(), strict=True):
        cells = [cell for cell in summary if cell["kind"] == error]
        cross = {"color": colour, "markersize": 11, "markeredgewidth": 3}
        for i, cell in enumerate(cells):
            if cell["when"] is not None:
                ax.plot(i + shift, cell["when"], "o", color=colour, markersize=10)
            if cell["escaped"] < cell["n"]:
                ax.plot(i + shift, 1.5 * longest, "x", **cross)
    ax.axhline(longest, color=plots.GREY, linewidth=1.2, linestyle="--")
    ax.text(0, 1.5 * longest, "not in the epochs given", color=plots.GREY, va="center", size=12)
    ax.set(yscale="log", ylabel="epochs until a second expert is in use", xlabel=AXIS)
    ax.set_xticks(range(len(cells)), [f"{cell['bias']:g}" for cell in cells])
    ax.set_ylim(1, 3 * longest)


def choices(ax: "Axes", summary: Sequence[Result]) -> None:
    """The test error per choice of k, and the router's first gradient in words."""
    rows = np.arange(len(summary))[::-1]
    for row, cell in zip(rows, summary, strict=True):
        zero = cell["zero"] == cell["n"]
        ax.barh(row, cell["error"], 0.6, color=plots.GREY if zero else plots.BLUE)
        words = f"first gradient {cell['gradient'][0]:.2f}"
        if zero:
            words = "gradient of the router: exactly 0"
        side = "right" if zero else "left"
        ax.text(cell["error"], row + 0.42, words, ha=side, va="bottom", size=11)
    ax.set_yticks(rows, [cell["choice"].replace(", ", ",\n") for cell in summary])
    ax.set(xlabel="test error (geometric mean)", ylim=(-0.6, len(summary) - 0.2))


def make(job: Job) -> str:
    """Run the questions and draw them; return their section of the report."""
    import matplotlib.pyplot as plt

    result = why_it_works.run(sweep=job.sweep, quick=job.quick, only=QUESTIONS)
    summaries = {name: answer["summary"] for name, answer in result["questions"].items()}
    dense = [cell for cell in summaries["collapse"] if cell["gate"] == "dense"]
    runs = why_it_works.specs(quick=job.quick, only=("collapse",))
    longest = max(spec["epochs"] for spec in runs)
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(17, 5.4))
        fig.get_layout_engine().set(w_pad=0.15)
        gradients(axes[0], dense)
        escapes(axes[1], dense, longest)
        choices(axes[2], summaries["k"])
        job.save(fig, "why_gate")
    return f"![the gate](why_gate.png)\n\n{why_it_works.report(result)}"
