"""A regression in pieces: four straight lines, each on an interval of its own, with jumps between
them and noise.

Made for experts that are straight lines and a gate that cuts the axis: with the right cuts nothing
is left but noise. The intervals differ in length, so that cutting the axis into equal parts (which
is all that can be done without looking at y) misses the cuts. Our own; not from a paper.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.checks import generator, integer

CUTS = (-0.6, -0.3, 0.5)  # x runs from −1 to 1
LINES = ((1.5, 0.9), (-2.0, 0.2), (1.2, -0.5), (-1.0, 0.0))  # (slope, value at x = 0) of each piece
NOISE = 0.1  # standard deviation


class Piecewise(NamedTuple):
    x: np.ndarray  # (N, 1) uniform on −1 to 1
    y: np.ndarray  # (N, 1)
    piece: np.ndarray  # (N,) 0 to 3, from left to right


def truth(x):
    """The noiseless line at x (N, 1), and the number of its piece: -> (y (N, 1), piece (N,))."""
    piece = np.searchsorted(CUTS, x[:, 0], side="right")
    slope, value = np.array(LINES)[piece].T
    return (slope * x[:, 0] + value)[:, None], piece


def piecewise(rng, n):
    """n fresh cases."""
    x = generator("rng", rng).uniform(-1, 1, (integer("n", n), 1))
    y, piece = truth(x)
    return Piecewise(x, y + NOISE * rng.normal(size=y.shape), piece)
