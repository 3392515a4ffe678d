"""Queries, keys and values by head for the compiled loops of attention: where they lie in memory,
and how rows of them are gathered and turned (`moe_np.layers.rotary`), and scattered again.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.types import Array, ArrayBTHd
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED
from moe_np.kernels.machine.jit_options import INLINE, INNER


class Heads(NamedTuple):
    """An array (B, T, H, d) as its numbers in memory, and the distances between neighbours there.

    So the columns of a joined projection and the keys of a key-value cache need no copy.
    """

    numbers: Annotated[np.ndarray, "n"]
    sequence: int
    position: int
    head: int


def heads(a: ArrayBTHd) -> Heads:
    """`a` as Heads; copied only where the numbers of a head do not lie side by side."""
    size = a.itemsize
    if a.strides[3] != size:
        a = np.ascontiguousarray(a)
    steps = [n // size for n in a.strides]
    reach = 1 + sum((n - 1) * step for n, step in zip(a.shape, steps, strict=True))
    numbers = np.lib.stride_tricks.as_strided(a, (reach,), (size,), writeable=False)
    return Heads(numbers, steps[0], steps[1], steps[2])


@njit(**INNER)
def gather(source, b, h, lo, hi, angles, scale, rows):
    """rows[t − lo] = scale · the row of position t, turned, for t from lo to hi.

    angles    cos and sin (T, d/2); without positions the rows are not turned
    """
    cos, sin = angles
    d = rows.shape[1]
    half = d // 2
    for t in range(lo, hi):
        at = b * source.sequence + t * source.position + h * source.head
        numbers = source.numbers[at : at + d]
        row = rows[t - lo]
        if len(cos):
            _turn(numbers[:half], numbers[half:], cos[t], sin[t], scale, row[:half], row[half:])
        else:
            for i in range(d):
                row[i] = scale * numbers[i]


@njit(**INLINE, fastmath=FUSED)
def _turn(a, b, cos, sin, scale, first, second):
    for i in range(len(cos)):
        c, s = scale * cos[i], scale * sin[i]
        first[i] = a[i] * c - b[i] * s
        second[i] = b[i] * c + a[i] * s


@njit(**INNER)
def scatter(rows, lo, angles, scale, out):
    """out[lo + i] = scale · row i, turned by the negative angles of position lo + i."""
    cos, sin = angles
    d = rows.shape[1]
    half = d // 2
    for i in range(len(rows)):
        row, to = rows[i], out[lo + i]
        if len(cos):
            turn = (cos[lo + i], sin[lo + i])
            _turn_back(row[:half], row[half:], turn[0], turn[1], scale, to[:half], to[half:])
        else:
            for j in range(d):
                to[j] = scale * row[j]


@njit(**INLINE, fastmath=FUSED)
def _turn_back(a, b, cos, sin, scale, first, second):
    for i in range(len(cos)):
        c, s = scale * cos[i], scale * sin[i]
        first[i] = a[i] * c + b[i] * s
        second[i] = b[i] * c - a[i] * s


def angles(rotary: tuple[Array, Array] | None, d: int, dtype: np.dtype) -> tuple[Array, Array]:
    """cos and sin of a rotation for `gather` and `scatter`; without positions for None."""
    none = np.empty((0, d // 2), dtype)
    pair = (none, none) if rotary is None else rotary
    cos, sin = (np.ascontiguousarray(a, dtype).view() for a in pair)
    cos.flags.writeable = False
    sin.flags.writeable = False
    return cos, sin
