"""A piecewise regression: four straight lines, each on its own interval, with jumps and noise.

Made for experts that are straight lines and a gating network that divides the axis: with the right
cuts only noise remains. The intervals differ in length, so dividing the axis into equal parts,
which is all that can be done without the targets, misses the cuts. It is not from a paper.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.checks import generator, integer
from moe_np.base.types import ArrayN, Rng

CUTS = (-0.6, -0.3, 0.5)  # x is between −1 and 1
LINES = ((1.5, 0.9), (-2.0, 0.2), (1.2, -0.5), (-1.0, 0.0))  # (slope, value at x = 0) of each piece
NOISE = 0.1  # standard deviation

ArrayN1 = Annotated[np.ndarray, "N, 1"]


class Piecewise(NamedTuple):
    """The cases of one draw."""

    x: ArrayN1  # uniform on −1 to 1
    y: ArrayN1
    piece: ArrayN  # 0 to 3, from left to right


def truth(x: ArrayN1) -> tuple[ArrayN1, ArrayN]:
    """The targets without noise, and the number of the piece that each x lies in."""
    piece = np.searchsorted(CUTS, x[:, 0], side="right")
    slope, value = np.array(LINES)[piece].T
    return (slope * x[:, 0] + value)[:, None], piece


def piecewise(rng: Rng, n: int) -> Piecewise:
    """Draw n cases."""
    x = generator("rng", rng).uniform(-1, 1, (integer("n", n), 1))
    y, piece = truth(x)
    return Piecewise(x, y + NOISE * rng.normal(size=y.shape), piece)
