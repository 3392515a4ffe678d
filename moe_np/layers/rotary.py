"""Rotary position embedding, RoPE (Su et al. 2021, arXiv 2104.09864, eq. 34).

Pair i of the features of a query or key at position t is turned by the angle t θ^(−2i/d):

    y_i         = x_i cos − x_{i+d/2} sin
    y_{i+d/2}   = x_{i+d/2} cos + x_i sin           i = 0 to d/2 − 1

    paper    here        shape           meaning
    m        positions   (T,)            position of each token
    10000    theta       number          base of the angles
    x        x           (B, T, H, d)    queries or keys, by head
             cos, sin    (T, d/2)        of the angles

The product of a query and a key then depends on the difference of their positions only. The paper
pairs the features (2i, 2i + 1), as Meta's files do; here, as in Transformers, the pairs are the
halves (i, i + d/2) (errata 21). `interleaved_to_half` brings the columns of weights from the first
order into the second; without it a model writes well for some twenty tokens and then no more.
"""

import functools
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayBTHd, DType


class Rotary(NamedTuple):
    """The angles of a sequence of positions."""

    cos: Annotated[np.ndarray, "T, d/2"]
    sin: Annotated[np.ndarray, "T, d/2"]


def angles(
    positions: Annotated[np.ndarray, "T"],
    d: int,
    *,
    theta: float = 10000.0,
    dtype: DType = np.float64,
) -> Rotary:
    """cos and sin of t θ^(−2i/d), each (T, d/2), for an even width d of a head.

    The angles are float64 whatever the dtype of the result: at position 32768 an angle in float32
    is wrong by up to 2e-3.
    """
    positions = checks.array("positions", positions, ("T",))
    theta = checks.number("theta", theta, greater_than=0)
    if checks.size("d", d) % 2:
        raise InputError(f"d: wanted an even width of a head, got {d}")
    dtype = checks.float_type("dtype", dtype)
    return at(positions, d, theta, dtype)


def at(positions: Annotated[np.ndarray, "T"], d: int, theta: float, dtype: DType) -> Rotary:
    """`angles` without the checks."""
    angle = positions.astype(np.float64)[:, None] * _frequencies(d, theta)
    return Rotary(np.cos(angle).astype(dtype), np.sin(angle).astype(dtype))


@functools.cache
def _frequencies(d, theta):
    return theta ** (-2 * np.arange(d // 2) / d)


def forward(x: ArrayBTHd, rotary: Rotary) -> ArrayBTHd:
    """Turn the pairs of x (B, T, H, d). The result has the dtype of x."""
    x = checks.array("x", x, ("B", "T", "H", "d"), finite=False)
    shape = (x.shape[1], x.shape[3] // 2)
    for name, a in rotary._asdict().items():
        checks.array(f"rotary.{name}", a, shape)
    return turn(x, *rotary)


def backward(dy: ArrayBTHd, rotary: Rotary) -> ArrayBTHd:
    """dx, from dy: the rotation by the negative angles. The angles are not differentiated."""
    return forward(dy, inverse(rotary))


def inverse(rotary: Rotary) -> Rotary:
    """The rotation by the negative angles."""
    return Rotary(rotary.cos, -rotary.sin)


def turn(x: ArrayBTHd, cos: Array, sin: Array) -> ArrayBTHd:
    """`forward` without the checks."""
    cos = cos[:, None].astype(x.dtype, copy=False)
    sin = sin[:, None].astype(x.dtype, copy=False)
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def interleaved_to_half(
    w: Annotated[np.ndarray, "..., H d"], n_heads: int
) -> Annotated[np.ndarray, "..., H d"]:
    """The columns of wq or wk (or the entries of their biases) from pairs (2i, 2i + 1) to halves.

    w (..., H·d), the heads side by side along the last axis.
    """
    w = checks.array("w", w, None, finite=False)
    heads = checks.size("n_heads", n_heads)
    if w.ndim == 0 or w.shape[-1] % (2 * heads):
        raise InputError(f"w: wanted {heads} heads of an even width, got shape {w.shape}")
    pairs = w.reshape(*w.shape[:-1], heads, -1, 2)
    return pairs.swapaxes(-1, -2).reshape(w.shape)
