"""The picture of any array: a map (two axes and more), bars (one) or a line along the walk (a
number).
"""

from typing import TYPE_CHECKING

import numpy as np

from moe_np import plots
from moe_np.base.types import Array
from moe_np.show.steps import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_WRITTEN = 120  # cells of a map in which the values are written
MAX_COLUMNS = 20  # of such a map
PLACES = ("token", "expert", "order", "ids", "C", "m", "p")  # positions, not sizes: no bars


def drawable(value: Array) -> bool:
    """Whether `newest` can draw an array: numbers, not too many axes."""
    return value.ndim <= 4 and value.size > 0 and value.dtype.kind in "fiub"


def newest(ax: "Axes", state: State, history: list[State]) -> None:
    """The last array that changed (or the last of all): a map, bars, or a line along the walk."""
    name = _newest_name(state)
    value = state.arrays[name].astype(float)
    axes = state.axes[name]
    if value.ndim > 2 and 1 in value.shape:
        axes = tuple(a for a, n in zip(axes, value.shape, strict=True) if n > 1) if axes else ()
        value = value.reshape([n for n in value.shape if n > 1])
    if value.ndim == 0:
        line = [float(s.arrays[name]) for s in history if name in s.arrays]
        ax.plot(range(len(line)), line, ".-", color=plots.BLUE)
        ax.set(xlabel="state", ylabel=name)
    elif value.ndim == 1:
        ax.bar(range(len(value)), value, color=plots.BLUE)
        ax.set(xlabel=axes[0] if axes else "", ylabel=name)
        ax.locator_params(axis="x", integer=True)
    else:
        block = list(value.shape)[-1] // (4 if "4H" in axes else 1)  # the gates of an LSTM
        axes = (axes[0], ", ".join(axes[1:])) if axes else ()
        draw_map(ax, value.reshape(len(value), -1), axes, block=block)
    ax.set_title(name, fontsize=12)


def _newest_name(state):
    """The last drawable array that changed, or the last drawable; with axes if there is one."""
    names = []
    for name, value in state.arrays.items():
        if drawable(value) and not (value.ndim < 2 and name in PLACES):
            names.append(name)
    names = [name for name in names if name in state.changed] or names
    with_axes = [name for name in names if state.arrays[name].ndim]
    return (with_axes or names or list(state.arrays))[-1]


def draw_map(
    ax: "Axes", value: Array, axes: tuple[str, ...], *, block: int, largest: float | None = None
) -> None:
    """A map of value (rows, columns): blue and red where some are negative, else shades of blue.

    axes      names of rows and columns, or ()
    block     white lines divide the columns into blocks of so many
    largest   the number of the strongest colour; None: the largest of all that are finite
    """
    finite = np.where(np.isfinite(value), value, np.nan)
    any_finite = np.isfinite(finite).any()
    if largest is None:
        largest = float(np.nanmax(np.abs(finite))) if any_finite else 1.0
    signed = np.nanmin(finite) < 0 if any_finite else False
    colours = {"cmap": "RdBu_r", "vmin": -largest} if signed else {"cmap": "Blues", "vmin": 0}
    ax.imshow(finite, vmax=largest or 1, aspect="auto", **colours)
    if value.size <= MAX_WRITTEN and value.shape[1] <= MAX_COLUMNS:
        centred = {"ha": "center", "va": "center", "fontsize": 8}
        for (i, j), v in np.ndenumerate(value):
            colour = "white" if abs(v) > 0.6 * largest else "black"
            ax.text(j, i, f"{v:.2g}", color=colour, **centred)
    for column in range(block, value.shape[1], block):
        ax.axvline(column - 0.5, color="white", linewidth=5, zorder=4)
    ax.locator_params(integer=True)
    if len(value) == 1:
        ax.set_yticks([0])
    if axes:
        ax.set(ylabel=axes[0], xlabel=axes[1])
