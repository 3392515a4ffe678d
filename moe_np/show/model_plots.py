"""Pictures of the lessons on whole models: attention, a block with its residual stream, training
curves, loads of experts, and the distribution of the next token.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np

from moe_np import plots
from moe_np.base.types import Array, ArrayE, ArrayN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Weights = Annotated[np.ndarray, "T, T"]

# --- a block --------------------------------------------------------------------------------------

BOXES = (  # height, name, what it does, colour: from the bottom to the top
    (1.0, "norm 1", "each token divided by its size", plots.GREY),
    (2.1, "attention", "causal, heads, rotary positions", plots.BLUE),
    (4.2, "norm 2", "each token divided by its size", plots.GREY),
    (5.3, "router", "some experts per token", plots.ORANGE),
    (6.4, "experts", "each works on the tokens that were sent to it", plots.ORANGE),
)
BRANCHES = ((0.6, 2.8, 3.4), (3.8, 7.1, 7.6))  # of a sublayer: leaves the stream, its top, its sum


def residual_block(ax: "Axes") -> None:
    """A transformer block with experts, from the bottom to the top: the residual stream is a thick
    line on the left, to which both sublayers add.
    """
    from matplotlib.patches import Rectangle

    for y, name, text, colour in BOXES:
        ax.add_patch(Rectangle((2, y), 1.8, 0.7, facecolor=colour, alpha=0.25))
        ax.text(2.9, y + 0.35, name, ha="center", va="center", fontsize=13)
        ax.text(4.1, y + 0.35, text, va="center", color=colour, fontsize=11)
    arrow = {"arrowstyle": "->", "lw": 1.6}
    ax.annotate("", (0.8, 8.2), (0.8, -0.3), arrowprops={**arrow, "lw": 4})
    for low, top, total in BRANCHES:
        ax.plot([0.8, 2.9], [low, low], color="black", lw=1.6)
        ax.annotate("", (2.9, low + 0.4), (2.9, low), arrowprops=arrow)
        ax.plot([2.9, 2.9], [top, total], color="black", lw=1.6)
        ax.annotate("", (1.0, total), (2.9, total), arrowprops=arrow)
        ax.plot(0.8, total, "o", color="white", mec="black", markersize=20, zorder=5)
        ax.text(0.8, total, "+", ha="center", va="center", fontsize=18, zorder=6)
    for y in (1.7, 4.9, 6.0):
        ax.annotate("", (2.9, y + 0.4), (2.9, y), arrowprops=arrow)
    for y, name in ((-0.1, "x"), (5.2, "a"), (8.0, "x_next")):
        ax.text(0.65, y, name, ha="right", fontsize=14)
    ax.set(xlim=(-0.6, 8.6), ylim=(-0.5, 8.4))
    ax.axis("off")


# --- attention ------------------------------------------------------------------------------------


def attention_weights(ax: "Axes", P: Weights, words: Sequence[str]) -> None:
    """P, who reads from whom: a row per query, a column per key, dark for 1 and white for 0."""
    ax.imshow(P, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(len(words)), words, rotation=90)
    ax.set_yticks(range(len(words)), words)
    ax.set(xlabel="keys: read from", ylabel="queries: who reads")
    ax.spines[:].set_visible(False)


def turning_pair(ax: "Axes", pairs: Annotated[np.ndarray, "n, 2"]) -> None:
    """One pair of features as an arrow from the origin, at the positions 0 to n − 1."""
    for position, (a, b) in enumerate(pairs):
        ax.annotate("", (a, b), (0, 0), arrowprops={"arrowstyle": "->", "lw": 2})
        ax.text(1.12 * a, 1.12 * b, str(position), ha="center", va="center", color=plots.BLUE)
    size = 1.3 * np.abs(pairs).max()
    ax.set(xlim=(-size, size), ylim=(-size, size), aspect="equal")


# --- training and loads ---------------------------------------------------------------------------


def loss_with_baselines(
    ax: "Axes", losses: Sequence[float], baselines: Mapping[str, float]
) -> None:
    """The loss by update, with a dashed line per model that it is compared with."""
    ax.plot(losses, color=plots.BLUE, linewidth=1.5)
    for name, value in baselines.items():
        ax.axhline(value, color=plots.GREY, linestyle="--", linewidth=1.5)
        ax.text(0.3 * len(losses), value + 0.04, name, fontsize=11)
    ax.set(xlabel="update", ylabel="loss, nats per token")


def shares_by_update(ax: "Axes", shares: Sequence[ArrayE]) -> None:
    """The share of all choices that each expert has, a line per expert; dashed: the even share."""
    for m, share in enumerate(np.transpose(shares)):
        ax.plot(share, color=plots.COLOURS[m % len(plots.COLOURS)], linewidth=1.2)
    ax.axhline(1 / len(shares[0]), color=plots.BLACK, linestyle="--")
    ax.set(xlabel="update", ylabel="share of all choices", ylim=(0, None))


def sorted_shares(ax: "Axes", shares: Mapping[str, ArrayE]) -> None:
    """Bars of the experts' shares, the largest first, a colour per model; dashed: the even one."""
    width = 0.8 / len(shares)
    for n, (name, share) in enumerate(shares.items()):
        places = np.arange(len(share)) + width * (n - (len(shares) - 1) / 2)
        ax.bar(places, np.sort(share)[::-1], 0.93 * width, color=plots.COLOURS[n], label=name)
        ax.axhline(1 / len(share), color=plots.BLACK, linestyle="--")
    ax.set(xlabel="experts, the fullest first", ylabel="share of all choices")
    ax.set_xticks([])
    ax.legend()


def gradient_reach(ax: "Axes", sizes: Mapping[str, ArrayN]) -> None:
    """The size of a gradient, step by step into the past, a line with its name per entry."""
    for colour, (name, values) in zip(plots.COLOURS, sizes.items(), strict=False):
        ax.semilogy(values, color=colour, linewidth=2)
        ax.text(len(values) - 0.5, values[-1], name, color=colour, va="center")
    longest = max(len(values) for values in sizes.values())
    ax.set(xlabel="steps back", ylabel="norm of the gradient", xlim=(0, 1.15 * longest))


# --- the next token -------------------------------------------------------------------------------


def next_tokens(ax: "Axes", names: Sequence[str], p: Array, n_kept: int) -> None:
    """Bars of the most probable tokens; the first `n_kept`, from which one is drawn, are blue."""
    colours = [plots.BLUE if i < n_kept else plots.GREY for i in range(len(p))]
    ax.bar(range(len(p)), p, color=colours)
    ax.set_xticks(range(len(p)), names, rotation=90)
    ax.set(ylabel="probability", ylim=(0, 1))
