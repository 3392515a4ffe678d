"""Dropout (Srivastava et al. 2014): in training, random units are 0 and the rest is scaled up.

    y = x · mask / (1 − p),     mask = 0 with probability p

The scale keeps the expectation, so that evaluation needs none. Where an expert has dropout, every
assignment draws a mask of its own (`experts.with_dropout`): the two experts of a token drop other
units. Nothing that a router reads should be dropped: the loads would be those of other tokens.
"""

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, Rng


def draw(shape: tuple[int, ...], p: float, rng: Rng | None) -> Array | None:
    """A mask (bool) that is False with probability p; None, that is no dropout, where p is 0 or
    without a generator. Raises InputError unless 0 ≤ p < 1.
    """
    p = checks.number("p", p, minimum=0, less_than=1)
    if rng is None or p == 0:
        return None
    return checks.generator("rng", rng).random(shape, np.float32) >= p


def apply(x: Array, mask: Array | None, p: float) -> Array:
    """x · mask / (1 − p) for a mask that `draw` made; x itself where it is None."""
    return x if mask is None else x * (mask * x.dtype.type(1 / (1 - p)))


def forward(x: Array, p: float, rng: Rng | None) -> tuple[Array, Array | None]:
    """x of any shape -> (y, mask). rng=None is evaluation: y is x, and the mask None."""
    x = checks.array("x", x, None, finite=False)
    mask = draw(x.shape, p, rng)
    return apply(x, mask, p), mask


def backward(dy: Array, mask: Array | None, p: float) -> Array:
    """dx = dy · mask / (1 − p)."""
    return apply(dy, mask, p)
