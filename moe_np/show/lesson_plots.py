"""Pictures of the lessons that take many lines to draw and few to understand: the lessons call
them, so that their own lines stay about mixtures of experts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_np import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# --- text -----------------------------------------------------------------------------------------


def coloured_tokens(
    ax: "Axes",
    texts: Sequence[str],
    experts: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    per_row: int = 60,
) -> None:
    """The tokens of a text one after another, each on the colour of its expert, with a legend.

    names     of the experts; None: "expert 0", ...
    per_row   characters per row
    """
    from matplotlib.patches import Rectangle

    x, row = 0.0, 0
    for text, expert in zip(texts, experts, strict=True):
        shown = text.replace(" ", "·").replace("\n", "↵")
        if x + len(shown) > per_row:
            x, row = 0.0, row + 1
        colour = plots.COLOURS[expert % len(plots.COLOURS)]
        look = {"facecolor": colour, "alpha": 0.4, "edgecolor": "white", "linewidth": 2}
        ax.add_patch(Rectangle((x, -row - 0.45), len(shown), 0.9, **look))
        font = {"family": "monospace", "fontsize": 11, "ha": "center", "va": "center"}
        ax.text(x + len(shown) / 2, -row, shown, **font)
        x += len(shown)
    for place, expert in enumerate(sorted(set(experts))):
        at = place * per_row / 8
        name = f"expert {expert}" if names is None else names[expert]
        colour = plots.COLOURS[expert % len(plots.COLOURS)]
        ax.plot(at + 0.5, -row - 1.4, "s", markersize=10, color=colour, alpha=0.5)
        ax.text(at + 1.3, -row - 1.4, name, fontsize=9, va="center")
    ax.set(xlim=(-0.2, per_row), ylim=(-row - 1.9, 0.6))
    ax.axis("off")


def bars_of_parameters(
    ax: "Axes", names: Sequence[str], active: Sequence[float], total: Sequence[float]
) -> None:
    """A bar per model: pale all parameters, full those that one token uses, in billions."""
    for row, (used, size) in enumerate(zip(active, total, strict=True)):
        ax.barh(row, size, 0.6, color=plots.BLUE, alpha=0.25)
        ax.barh(row, used, 0.6, color=plots.BLUE)
        words = f"{used:,.1f} of {size:,.1f} billion: {used / size:.0%}"
        ax.text(size * 1.1, row, words, va="center", fontsize=11)
    ax.set_yticks(range(len(names)), names)
    ax.set(xscale="log", xlim=(0.1, 60 * max(total)), xlabel="billion parameters (logarithmic)")
    ax.invert_yaxis()
