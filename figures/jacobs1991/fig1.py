"""Fig. 1 of Jacobs et al. (1991): experts, a gating network, and a selector of one expert's output.

All networks have the same input. The gating network has one output per expert, and these outputs
are the probabilities with which the selector answers with that expert. Nothing is added up: that is
the difference between eq. 3 and eq. 1.
"""

from typing import TYPE_CHECKING

from figures import Job
from moe_np import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Jacobs et al. 1991, Fig. 1: the architecture"
ORDER = 5
Point = tuple[float, float]


def box(ax: "Axes", centre: Point, size: Point, text: str, colour: str) -> None:
    """A rounded box about `centre`, size (width, height), with a text."""
    from matplotlib.patches import FancyBboxPatch

    corner = (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    shape = FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=.08")
    shape.set(facecolor=colour + "26", edgecolor=colour, linewidth=2)
    ax.add_patch(shape)
    ax.text(*centre, text, ha="center", va="center", size=14)


def arrow(ax: "Axes", start: Point, end: Point, colour: str) -> None:
    """A straight arrow."""
    style = {"arrowstyle": "-|>,head_width=.3,head_length=.5", "color": colour, "linewidth": 2}
    style |= {"connectionstyle": "arc3,rad=0.0", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


def draw(ax: "Axes") -> None:
    """Experts below the selector, the gating network to their right, the input below all."""
    ax.set(xlim=(-0.1, 8.1), ylim=(-0.15, 5.35), aspect="equal")
    ax.axis("off")
    selector = (2.4, 3.85)
    for i, x in enumerate((0.8, 2.4, 4.0), start=1):
        arrow(ax, (x, 0.75), (x, 1.25), plots.GREY)
        box(ax, (x, 1.75), (1.3, 1.0), f"expert {i}", plots.BLUE)
        tip = (selector[0] + (x - selector[0]) * 0.42, selector[1] - 0.4)
        beside = ((x + tip[0]) / 2 + (-0.34 if i == 1 else 0.34), (2.25 + tip[1]) / 2)
        arrow(ax, (x, 2.25), tip, plots.BLUE)
        plots.label(ax, *beside, f"$o_{i}$", plots.BLUE, size=16)
    arrow(ax, (6.7, 0.75), (6.7, 1.25), plots.GREY)
    box(ax, (6.7, 1.75), (1.5, 1.0), "gate\n(softmax)", plots.ORANGE)
    for i, height in enumerate((3.6, 3.85, 4.1)):
        ax.plot([6.4 + 0.3 * i] * 2, [2.25, height], color=plots.ORANGE, linewidth=2)
        arrow(ax, (6.4 + 0.3 * i, height), (3.5, height), plots.ORANGE)
    plots.label(ax, 5.0, 4.42, "$p_1,\\ p_2,\\ p_3$", plots.ORANGE, size=16)
    box(ax, selector, (2.2, 0.8), "selector: expert $i$\nwith chance $p_i$", plots.GREEN)
    arrow(ax, (2.4, 4.25), (2.4, 4.85), plots.GREEN)
    ax.text(2.4, 5.1, "output", ha="center", va="center", size=14)
    ax.plot([0.8, 6.7], [0.75, 0.75], color=plots.GREY, linewidth=2)
    ax.plot([3.2, 3.2], [0.3, 0.75], color=plots.GREY, linewidth=2)
    ax.text(3.2, 0.1, "input: formants $F_1$ and $F_2$", ha="center", va="center", size=14)


def make(job: Job) -> str:
    """Draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    with plots.style():
        fig, ax = plt.subplots(figsize=(8.2, 5.6))
        draw(ax)
        job.save(fig, "jacobs1991_fig1")
    return (
        "![architecture](jacobs1991_fig1.png)\n\n"
        "Every expert is one logistic unit on two formants; the gating network is linear with a "
        "softmax. In training nothing is drawn: eq. 3 is the likelihood of the target under the "
        "draw, E = −log Σ p_i exp(−½ ‖d − o_i‖²)."
    )
