"""Rows at their ranks, in the colours of their homes: the picture of an exchange."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from moe_np import plots
from moe_np.show.steps import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def exchanged_rows(ax: "Axes", state: State, history: Sequence[State] = ()) -> None:
    """A column per rank with a square per row that arrived, in the colour of the row's home. The
    line under a column has the colour of the rank itself.

    state   of `moe_np.show.walk.exchange`
    """
    ranks = len(state.arrays["counts"])
    home, at = state.arrays["home"], state.arrays["at"]
    for rank in range(ranks):
        homes = home[at == rank]
        colours = [plots.COLOURS[n % len(plots.COLOURS)] for n in homes]
        height = np.arange(len(homes))
        ax.bar([rank] * len(homes), 0.9, 0.6, bottom=height, color=colours)
    for rank in range(ranks):
        colour = plots.COLOURS[rank % len(plots.COLOURS)]
        ax.plot([rank - 0.3, rank + 0.3], [-0.4, -0.4], color=colour, linewidth=6)
    ax.set_xticks(range(ranks), [f"rank {rank}" for rank in range(ranks)])
    ax.set(title=state.phase, ylabel="rows that arrived", ylim=(-0.8, None))
