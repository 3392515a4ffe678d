"""Drawn diagrams for the lessons: a transformer block with a sparse layer in it, and mixtures that
share something or stand one inside the other. Boxes and arrows on a matplotlib Axes; no numbers are
computed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moe_np import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALE = {plots.BLUE: "#d6e6f2", plots.ORANGE: "#f8dfcf", plots.GREEN: "#d2ece4"}
PALE_GREY = "#eeeeee"
Point = tuple[float, float]


def box(
    ax: "Axes",
    x: float,
    y: float,
    text: str,
    *,
    width: float = 2.0,
    height: float = 0.6,
    colour: str = plots.BLACK,
    fill: str = "white",
    size: float = 12,
) -> None:
    """A rounded box with its middle at (x, y) and a text in it."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    look = {"facecolor": fill, "edgecolor": colour, "linewidth": 1.8, "zorder": 3}
    shape = "round,pad=0,rounding_size=.1"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **look))
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=colour, zorder=4)


def arrow(
    ax: "Axes", start: Point, end: Point, *, colour: str = plots.BLACK, width: float = 1.8
) -> None:
    """An arrow from start to end."""
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look, zorder=2)


def _path(ax, points, colour=plots.BLACK, width=1.8, style="-"):
    """Straight pieces through the points, with an arrow at the end of the last one."""
    ax.plot(*zip(*points[:-1], strict=True), style, color=colour, linewidth=width, zorder=2)
    arrow(ax, points[-2], points[-1], colour=colour, width=width)


def _sum_sign(ax, x, y):
    ax.plot(x, y, "+", markersize=11, markeredgewidth=1.8, color=plots.BLACK, zorder=5)
    ax.plot(x, y, "o", markersize=19, color="white", markeredgecolor=plots.BLACK, zorder=4)


def _clean(ax, xlim, ylim):
    ax.set(xlim=xlim, ylim=ylim, aspect="equal")
    ax.axis("off")


# --- a transformer block --------------------------------------------------------------------------


def transformer_block(ax: "Axes", n_experts: int = 8, chosen: Sequence[int] = (1, 5)) -> None:
    """One block of a language model, read from the bottom to the top, and beside it the sparse
    layer, which stands where a dense model has one feed-forward net.

    chosen   the two experts that the router picks in the drawing, at most n_experts - 1
    """
    x = 1.6
    ax.add_patch(_frame(-0.5, 0.75, 4.0, 5.6))
    ax.text(-0.35, 6.0, "one block; a model\nhas 30 to 60", fontsize=10.5, va="center")
    box(ax, x, 0.15, "one vector per token", width=3.4, fill=PALE_GREY)
    box(ax, x, 1.3, "norm", width=1.8)
    attention = "attention: tokens\nlook at each other"
    box(ax, x, 2.15, attention, width=2.5, height=0.75, fill=PALE[plots.GREEN], size=10.5)
    box(ax, x, 3.85, "norm", width=1.8)
    box(ax, x, 4.7, "sparse layer", width=2.2, colour=plots.BLUE, fill=PALE[plots.BLUE])
    box(ax, x, 6.9, "to the next block", width=3.4, fill=PALE_GREY)
    for low, high in ((0.45, 1.0), (1.6, 1.78), (2.53, 2.72), (3.23, 3.55)):
        arrow(ax, (x, low), (x, high))
    for low, high in ((4.15, 4.4), (5.0, 5.27), (5.78, 6.6)):
        arrow(ax, (x, low), (x, high))
    for start, end in ((0.72, 2.97), (3.4, 5.52)):
        _path(ax, [(x, start), (0.05, start), (0.05, end), (x - 0.25, end)], colour=plots.GREY)
        _sum_sign(ax, x, end)
    for y in (4.4, 5.0):
        ax.plot([2.75, 4.6], [y, 0.35 if y < 4.7 else 6.55], ":", color=plots.BLUE, zorder=1)
    _inside(ax, 4.6, n_experts, chosen)
    _clean(ax, (-0.7, 12.1), (-0.3, 7.4))


def _frame(x, y, width, height, colour=plots.GREY):
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=.15"
    look = {"facecolor": "none", "edgecolor": colour, "linestyle": "--", "zorder": 1}
    return FancyBboxPatch((x, y), width, height, boxstyle=shape, **look)


def _inside(ax, left, n_experts, chosen):
    """The sparse layer for one token, in a frame that begins at x = left."""
    width = 7.2
    middle = left + width / 2
    ax.add_patch(_frame(left, 0.35, width, 6.2, plots.BLUE))
    box(ax, middle, 0.95, "one token", width=1.8, fill=PALE_GREY)
    box(ax, middle, 2.3, "router: a score per expert", width=3.8, fill=PALE[plots.ORANGE])
    arrow(ax, (middle, 1.25), (middle, 2.0))
    arrow(ax, (middle, 5.93), (middle, 6.9))
    _sum_sign(ax, middle, 5.68)
    step = (width - 0.8) / n_experts
    for number in range(n_experts):
        x = left + 0.4 + (number + 0.5) * step
        runs = number in chosen
        colour = plots.BLUE if runs else plots.GREY
        fill = PALE[plots.BLUE] if runs else PALE_GREY
        box(ax, x, 4.0, str(number), width=0.75 * step, height=0.9, colour=colour, fill=fill)
        if runs:
            weight = "× 0.7" if number == chosen[0] else "× 0.3"
            arrow(ax, (middle + 0.3 * (x - middle), 2.6), (x, 3.55), colour=plots.BLUE)
            arrow(ax, (x, 4.45), (middle + 0.09 * (x - middle), 5.45), colour=plots.BLUE)
            outside = -0.75 if x < middle else 0.45
            plots.label(ax, (x + middle) / 2 + outside, 5.1, weight, plots.BLUE, size=12)
    ax.text(left + 0.2, 3.3, "experts", fontsize=11, va="center")
    ax.text(left + width - 0.15, 3.1, "grey: not run", fontsize=11, color="#666666", ha="right")


# --- mixtures that share, and mixtures inside mixtures --------------------------------------------


def kinds_of_sharing(axes: "Sequence[Axes] | Any") -> None:
    """Three Axes: a mixture inside a mixture, experts with shared parameters, a shared expert."""
    _nested(axes[0])
    _shared_parameters(axes[1])
    _shared_expert(axes[2])
    for ax, title in zip(axes, ("a mixture in a mixture", "shared parameters", "a shared expert"),
                         strict=True):  # fmt: skip
        ax.set_title(title, loc="center")
        _clean(ax, (-0.3, 6.3), (-0.1, 5.6))


def _row_of_experts(ax, xs, y, colour=plots.BLUE, names=None):
    for number, x in enumerate(xs):
        name = str(number) if names is None else names[number]
        box(ax, x, y, name, width=0.75, height=0.7, colour=colour, fill=PALE[plots.BLUE])


def _nested(ax):
    box(ax, 3, 0.4, "x", width=0.9, fill=PALE_GREY)
    box(ax, 3, 1.6, "gate", width=1.4, fill=PALE[plots.ORANGE])
    arrow(ax, (3, 0.7), (3, 1.3))
    for middle in (1.4, 4.6):
        ax.add_patch(_frame(middle - 1.3, 2.35, 2.6, 2.4, plots.BLUE))
        box(ax, middle, 2.85, "gate", width=1.4, fill=PALE[plots.ORANGE])
        arrow(ax, (3 + 0.2 * (middle - 3), 1.9), (middle, 2.55))
        _row_of_experts(ax, (middle - 0.6, middle + 0.6), 4.1, names=("a", "b"))
        for x in (middle - 0.6, middle + 0.6):
            arrow(ax, (middle, 3.15), (x, 3.75))
    ax.text(3, 5.15, "each expert is a mixture itself", ha="center", fontsize=11)


def _shared_parameters(ax):
    xs = (0.9, 2.3, 3.7, 5.1)
    box(ax, 3, 0.4, "x", width=0.9, fill=PALE_GREY)
    box(ax, 3, 2.0, "one first layer for all", width=5.0, fill=PALE[plots.GREEN])
    arrow(ax, (3, 0.7), (3, 1.7))
    _row_of_experts(ax, xs, 4.1)
    for x in xs:
        arrow(ax, (x, 2.3), (x, 3.75))
    ax.text(3, 5.15, "each expert has only its last layer", ha="center", fontsize=11)


def _shared_expert(ax):
    xs = (2.3, 3.7, 5.1)
    box(ax, 3, 0.4, "x", width=0.9, fill=PALE_GREY)
    box(ax, 3.7, 2.0, "router", width=1.6, fill=PALE[plots.ORANGE])
    arrow(ax, (3.1, 0.7), (3.7, 1.7))
    box(ax, 0.8, 4.1, "all", width=0.9, height=0.7, colour=plots.GREEN, fill=PALE[plots.GREEN])
    _path(ax, [(2.55, 0.4), (0.8, 0.4), (0.8, 3.75)], colour=plots.GREEN)
    _row_of_experts(ax, xs, 4.1)
    for x in (2.3, 5.1):
        arrow(ax, (3.7, 2.3), (x, 3.75))
    ax.text(3, 5.15, "one expert for all tokens, and the router's", ha="center", fontsize=11)
