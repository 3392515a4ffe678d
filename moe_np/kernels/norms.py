"""RMSNorm, with or without the residual before it, as compiled loops; the equations are in
`moe_np.layers.norms`.

NumPy passes over the rows several times, and each pass is limited by memory. Here a row is read,
added to the residual, normed and written while it is in the nearest cache. The gradients of the
gain are summed per block of rows and then over the blocks, which do not depend on the number of
threads.
"""

import numpy as np

from moe_np.base.machine import blas_threads
from moe_np.base.types import Array, ArrayD, ArrayN, ArrayND
from moe_np.kernels.machine.blas import read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.jit_options import ENTRY
from moe_np.kernels.machine.thread_pool import add, share

BLOCK = 128  # rows that a thread takes at a time
LARGE = 1 << 17  # numbers up to which a single thread works alone
SUMS = {"reassoc", "contract", "nsz"}  # sums may be reordered; infinities and NaN keep their sense


def _scratch(size):
    """The argument `scratch` of `share`, for threads without arrays: a single thread or several."""
    return [()] * (1 if size < LARGE else blas_threads())


@njit(**ENTRY, fastmath=SUMS)
def _forward(counter, x, branch, g, eps, total, y, r):
    """A block of rows at a time; without a residual, branch and total are empty."""
    N, D = x.shape
    unit = x.dtype.type(1)
    block = add(counter, 0, BLOCK)
    while block < N:
        for n in range(block, min(block + BLOCK, N)):
            squares = unit - unit
            if len(branch):
                for d in range(D):
                    total[n, d] = x[n, d] + branch[n, d]
            source = total[n] if len(branch) else x[n]
            for d in range(D):  # without a store: the same order of sums at any address
                squares += source[d] * source[d]
            root = unit / np.sqrt(squares / x.dtype.type(D) + eps)
            r[n] = root
            for d in range(D):
                y[n, d] = source[d] * root * g[d]
        block = add(counter, 0, BLOCK)
    return True


def forward(
    g: ArrayD, x: ArrayND, branch: ArrayND | None, eps: float
) -> tuple[ArrayND, ArrayND, ArrayN]:
    """s = x + branch, or x itself; -> s, y (N, D), r (N,), as `rms_forward_numpy`, to rounding."""
    dtype = x.dtype
    x = read_only(x)
    y = np.empty(x.shape, dtype)
    r = np.empty(len(x), dtype)
    total = np.empty(x.shape if branch is not None else (0, x.shape[1]), dtype)
    added = read_only(total if branch is None else branch, dtype)
    arguments = (x, added, read_only(g, dtype), dtype.type(eps), total, y, r)
    with np.errstate(all="ignore"):  # where the loop runs in the interpreter
        share(_forward, arguments, _scratch(x.size))
    return (x if branch is None else total), y, r


@njit(**ENTRY, fastmath=SUMS)
def _backward(counter, dy, dtotal, x, g, r, dx, dg):
    """A block of rows at a time, with a gradient of g per block; dtotal may be empty."""
    N, D = x.shape
    block = add(counter, 0, 1)
    while block < len(dg):
        part = dg[block]
        part[:] = 0
        for n in range(block * BLOCK, min((block + 1) * BLOCK, N)):
            root = r[n]
            mean = root - root
            for d in range(D):
                mean += dy[n, d] * g[d] * x[n, d]
            mean *= root * root * root / x.dtype.type(D)
            for d in range(D):
                arriving = dy[n, d]
                part[d] += arriving * x[n, d] * root
                dx[n, d] = root * g[d] * arriving - mean * x[n, d]
            if len(dtotal):
                for d in range(D):
                    dx[n, d] += dtotal[n, d]
        block = add(counter, 0, 1)
    return True


def backward(
    dy: ArrayND, dtotal: ArrayND | None, x: ArrayND, g: ArrayD, r: Array
) -> tuple[ArrayND, ArrayD]:
    """-> dx + dtotal (N, D), dg (D,), as `rms_backward_numpy`, to rounding."""
    dtype = x.dtype
    dx = np.empty(x.shape, dtype)
    dg = np.empty((-(-len(x) // BLOCK), x.shape[1]), dtype)
    past = read_only(np.empty((0, x.shape[1])) if dtotal is None else dtotal, dtype)
    rows = (read_only(dy, dtype), past, read_only(x), read_only(g, dtype), read_only(r, dtype))
    share(_backward, (*rows, dx, dg), _scratch(x.size))
    return dx, dg.sum(axis=0)
