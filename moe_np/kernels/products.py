"""Products of many rows with a matrix, in shared tasks; the equations are in
`moe_np.layers.products`.

BLAS has one thread, and each thread multiplies some of the rows: OpenBLAS's own threads would spin
for some 25 ms after a product, on the cores that the next loop needs. The gradient of a matrix is a
sum over rows, of a few parts whose number does not depend on the threads.
"""

from typing import Annotated

import numpy as np

from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.base.types import Array, ArrayND
from moe_np.kernels.machine.blas import NO_TRANS, TRANS, gemm, read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.jit_options import ENTRY
from moe_np.kernels.machine.thread_pool import add, share

ROWS = 128  # rows of a product that a thread takes at a time
PART = 256  # rows of a part of a gradient, or an eighth of many
MOST_PARTS = 8
LARGE = 1 << 20  # multiplications up to which one thread works alone


def _scratch(multiplications, tasks):
    """The argument `scratch` of `share`, for threads without arrays: one or several threads."""
    return [()] * (1 if multiplications < LARGE else min(blas_threads(), tasks))


@njit(**ENTRY)
def _product(counter, op, x, w, y):
    """ROWS rows at a time."""
    low = add(counter, 0, ROWS)
    while low < len(x):
        high = min(low + ROWS, len(x))
        gemm(NO_TRANS, op, x[low:high], w, 0, y[low:high])
        low = add(counter, 0, ROWS)
    return True


def product(x: ArrayND, w: Array, transposed: bool) -> Annotated[np.ndarray, "N, K"]:
    """x w, or x wᵀ."""
    columns = w.shape[0 if transposed else 1]
    y = np.empty((len(x), columns), x.dtype)
    tasks = -(-len(x) // ROWS)
    arrays = (TRANS if transposed else NO_TRANS, read_only(x), read_only(w, x.dtype), y)
    with one_blas_thread():
        share(_product, arrays, _scratch(x.size * columns, tasks))
    return y


@njit(**ENTRY)
def _weight_gradient(counter, x, dy, dw):
    """A part of the rows at a time, each with a sum of its own."""
    parts = len(dw)
    part = add(counter, 0, 1)
    while part < parts:
        low = part * len(x) // parts
        high = (part + 1) * len(x) // parts
        gemm(TRANS, NO_TRANS, x[low:high], dy[low:high], 0, dw[part])
        part = add(counter, 0, 1)
    return True


def weight_gradient(x: ArrayND, dy: Annotated[np.ndarray, "N, K"]) -> Annotated[np.ndarray, "D, K"]:
    """xᵀ dy."""
    parts = min(MOST_PARTS, max(1, len(x) // PART))
    dw = np.empty((parts, x.shape[1], dy.shape[1]), x.dtype)
    arrays = (read_only(x), read_only(dy, x.dtype), dw)
    with one_blas_thread():
        share(_weight_gradient, arrays, _scratch(x.size * dy.shape[1], parts))
    return dw[0] if parts == 1 else dw.sum(axis=0)
