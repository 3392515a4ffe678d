"""The update of AdamW as a compiled loop; the equations are in `moe_np.base.optim`.

The loop is bound by memory: seven numbers are read or written per parameter. All factors are cast
to the type of the parameters first: one float64 among them would make every operation one in
float64, with half as many numbers per vector.
"""

import numpy as np

from moe_np.base.machine import blas_threads
from moe_np.base.optim import AdamWFactors
from moe_np.base.types import Array
from moe_np.kernels.machine.blas import read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED
from moe_np.kernels.machine.jit_options import ENTRY, INNER
from moe_np.kernels.machine.thread_pool import add, share

PART = 1 << 15  # numbers that a thread takes at a time


@njit(**INNER, fastmath=FUSED)
def _part(p, g, m, v, factors):
    """One update of a part of a leaf."""
    decay, beta1, beta2, step, root, eps, scale = factors
    rest1 = p.dtype.type(1) - beta1
    rest2 = p.dtype.type(1) - beta2
    for i in range(len(p)):
        d = g[i] * scale
        mean = beta1 * m[i] + rest1 * d
        square = beta2 * v[i] + rest2 * (d * d)
        m[i] = mean
        v[i] = square
        p[i] = p[i] * decay - step * mean / (np.sqrt(square) * root + eps)


@njit(**ENTRY)
def _update(counter, p, g, m, v, factors):
    """A part at a time."""
    part = add(counter, 0, 1)
    while part * PART < len(p):
        low = part * PART
        high = min(low + PART, len(p))
        _part(p[low:high], g[low:high], m[low:high], v[low:high], factors)
        part = add(counter, 0, 1)
    return True


def update(p: Array, g: Array, m: Array, v: Array, factors: AdamWFactors) -> None:
    """`adamw_update` of `moe_np.base.optim`, equal to rounding: p, m and v are overwritten."""
    numbers = tuple(p.dtype.type(factor) for factor in factors)
    arguments = (p.reshape(-1), read_only(g).reshape(-1), m.reshape(-1), v.reshape(-1), numbers)
    if p.size <= 2 * PART:
        _update(np.zeros(4, np.int64), *arguments)
    else:
        share(_update, arguments, [()] * blas_threads())
