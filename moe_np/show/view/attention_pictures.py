"""The pictures of attention: who attends to what, with the masked part, and the rotation of queries
and keys.
"""

from typing import TYPE_CHECKING

import numpy as np

from moe_np import plots
from moe_np.show.steps import State
from moe_np.show.view.array_pictures import draw_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAPS = ("scores", "S", "P", "dP", "dS")  # (B, Hq, T, S)
UNMASKED = ("scores", "dP")  # these have numbers also at hidden keys
HIDDEN = {"facecolor": "#e8e8e8", "edgecolor": "#b0b0b0", "hatch": "////", "linewidth": 0}


# --- attention ------------------------------------------------------------------------------------


def _map_name(state):
    """The newest of the maps of attention, or None."""
    names = [n for n in MAPS if n in state.changed and state.arrays[n].ndim == 4]
    return names[-1] if names else None


def fits_attention(state: State) -> bool:
    """Whether the state has new scores, probabilities, or gradients of these."""
    return _map_name(state) is not None


def attention(ax: "Axes", state: State, history: list[State]) -> None:
    """Queries down, keys across, the heads of the first sequence side by side.

    Hatched are the keys that a query may not attend to.
    """
    from matplotlib.patches import Rectangle

    name = str(_map_name(state))
    value = state[name][0].astype(float)
    n_heads, T, S = value.shape
    hidden = np.zeros(value.shape, bool)
    if name not in UNMASKED and "S" in state.arrays:
        hidden = np.isneginf(state["S"][0])
    largest = 1.0 if name == "P" else None
    draw_map(ax, np.concatenate(value, axis=1), (), block=S, largest=largest)
    for h, t, s in np.argwhere(hidden):
        ax.add_patch(Rectangle((h * S + s - 0.5, t - 0.5), 1, 1, zorder=3, **HIDDEN))
    ax.set_xticks(range(n_heads * S), np.tile(np.arange(S), n_heads))
    ax.set(yticks=range(T), ylabel="query, position t", xlabel="key, position s")
    for h in range(n_heads):
        ax.text((h + 0.5) * S - 0.5, -0.65, f"head {h}", ha="center", fontsize=10)
    masked = "   (hatched: hidden keys)" if hidden.any() else ""
    ax.set_title(f"{name}{masked}", fontsize=12, pad=18)


# --- rotation -------------------------------------------------------------------------------------


def _turned_name(state):
    names = [name for name in ("q", "k") if f"{name}_turned" in state.changed]
    return names[-1] if names else None


def fits_rotation(state: State) -> bool:
    """Whether queries or keys have just been turned."""
    return _turned_name(state) is not None


def rotation(ax: "Axes", state: State, history: list[State]) -> None:
    """The direction of each pair of features, grey before the rotation and coloured after it.

    Positions of the first sequence across, pairs of the first head down.
    """
    name = str(_turned_name(state))
    before = state[name][0, :, 0]  # (T, d)
    after = state[f"{name}_turned"][0, :, 0]
    T, d = before.shape
    t, i = np.meshgrid(np.arange(T), np.arange(d // 2), indexing="ij")
    colours = [plots.COLOURS[pair % len(plots.COLOURS)] for pair in i.ravel()]
    arrows = ((before, "#c4c4c4", 0.016, 2), (after, colours, 0.005, 4))
    for pairs, colour, width, head in arrows:
        length = np.maximum(np.hypot(pairs[:, : d // 2], pairs[:, d // 2 :]), 1e-300) / 0.45
        right = pairs[:, : d // 2] / length
        down = -pairs[:, d // 2 :] / length  # the axis of the pairs points downwards
        units = {"angles": "xy", "scale_units": "xy", "scale": 1}
        look = {"color": colour, "width": width, "headwidth": head, "headlength": head}
        look["headaxislength"] = head
        ax.quiver(t, i, right, down, **units, **look)
    ax.set(xlim=(-0.6, T - 0.4), ylim=(d // 2 - 0.4, -0.6), aspect="equal")
    ax.set(xticks=range(T), yticks=range(d // 2), xlabel="position t", ylabel="pair i")
    ax.set_title(f"{name}, head 0, pairs (i, i + d/2): grey before, coloured after", fontsize=12)
