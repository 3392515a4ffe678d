"""The recurrence of an LSTM layer as compiled loops; the equations are in `moe_np.layers.lstm`.

A task is a few rows of the batch: a thread takes them through all steps without a word to the other
threads. Gates and cells are computed in one pass over what the product has just written, and the
product with wh adds to the part that comes from x. The products of all steps together, with x and
for the gradients of the parameters, are NumPy's.
"""

from typing import Annotated

import numpy as np

from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.base.types import Array, Params
from moe_np.kernels.machine.blas import NO_TRANS, TRANS, gemm, read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED, exp
from moe_np.kernels.machine.jit_options import ENTRY, INLINE, INNER
from moe_np.kernels.machine.thread_pool import add, share

ROWS = 16  # rows of the batch that a thread takes at a time, or an eighth of many
MOST_TASKS = 8  # it does not depend on the number of threads, and so no bit does
LARGE = 1 << 22  # operations up to which one thread works alone

ArrayTBH = Annotated[np.ndarray, "T, B, H"]
ArrayTB4H = Annotated[np.ndarray, "T, B, 4 H"]
ArrayTBP = Annotated[np.ndarray, "T + 1, B, P"]


def _tasks(batch):
    """The number of tasks into which the rows of a batch are divided."""
    return min(MOST_TASKS, max(1, batch // ROWS))


def _scratch(steps, batch, wh):
    """The argument `scratch` of `share`, for threads without arrays: one or several threads."""
    operations = 2 * steps * batch * wh.size
    return [()] * (1 if operations < LARGE else min(blas_threads(), _tasks(batch)))


@njit(**INLINE)
def _unit(x):
    """1 in the type of x."""
    return np.float32(1) if isinstance(x, np.float32) else 1.0


@njit(**INLINE, fastmath=FUSED)
def _sigmoid(x):
    return _unit(x) / (_unit(x) + exp(-x))


@njit(**INLINE, fastmath=FUSED)
def _tanh(x):
    """2 σ(2 x) − 1, exact to the rounding of 1."""
    unit = _unit(x)
    return unit - (unit + unit) / (unit + exp(x + x))


@njit(**INNER, fastmath=FUSED)
def _cell(z, before, c, tanh_c, m):
    """z becomes the gates i, f, g, o; c = f · before + i · g, m = o tanh(c)."""
    H = c.shape[1]
    for n in range(len(c)):
        i = z[n, :H]
        f = z[n, H : 2 * H]
        g = z[n, 2 * H : 3 * H]
        o = z[n, 3 * H :]
        for j in range(H):
            i[j] = _sigmoid(i[j])
            f[j] = _sigmoid(f[j])
            g[j] = _tanh(g[j])
            o[j] = _sigmoid(o[j])
        for j in range(H):
            cell = f[j] * before[n, j] + i[j] * g[j]
            squashed = _tanh(cell)
            c[n, j] = cell
            tanh_c[n, j] = squashed
            m[n, j] = o[j] * squashed


@njit(**ENTRY)
def _forward(counter, tasks, wh, wp, z, h, c, tanh_c, m):
    """A few rows at a time: z (T, B, 4H) becomes the gates; without a projection, m is h[1:]."""
    T, B, _ = z.shape
    task = add(counter, 0, 1)
    while task < tasks:
        low = task * B // tasks
        high = (task + 1) * B // tasks
        for t in range(T):
            gemm(NO_TRANS, NO_TRANS, h[t, low:high], wh, 1, z[t, low:high])
            _cell(
                z[t, low:high], c[t, low:high],
                c[t + 1, low:high], tanh_c[t, low:high], m[t, low:high],
            )  # fmt: skip
            if len(wp):
                gemm(NO_TRANS, NO_TRANS, m[t, low:high], wp, 0, h[t + 1, low:high])
        task = add(counter, 0, 1)
    return True


def forward(params: Params, z: ArrayTB4H, h: ArrayTBP, c: ArrayTBH) -> tuple[ArrayTBH, ArrayTBH]:
    """`recurrence_numpy` of `moe_np.layers.lstm`, equal to rounding: z becomes the gates, h and c
    are filled from their first step on; -> tanh_c, m (T, B, H).
    """
    tanh_c = np.empty_like(c[1:])
    wh = read_only(params["wh"])
    projected = "wp" in params
    m = np.empty_like(tanh_c) if projected else h[1:]
    wp = read_only(params["wp"] if projected else np.empty((0, 0), wh.dtype))
    tasks = _tasks(z.shape[1])
    with one_blas_thread():
        share(_forward, (tasks, wh, wp, z, h, c, tanh_c, m), _scratch(*z.shape[:2], wh))
    return tanh_c, m


# --- backward -------------------------------------------------------------------------------------


@njit(**INNER, fastmath=FUSED)
def _cell_backward(dm, dc, c, gates, tanh_c, dz):
    """dc of the cells after becomes that of the cells before, which c are."""
    H = c.shape[1]
    unit = dz.dtype.type(1)
    for n in range(len(c)):
        i = gates[n, :H]
        f = gates[n, H : 2 * H]
        g = gates[n, 2 * H : 3 * H]
        o = gates[n, 3 * H :]
        di = dz[n, :H]
        df = dz[n, H : 2 * H]
        dg = dz[n, 2 * H : 3 * H]
        do = dz[n, 3 * H :]
        for j in range(H):
            squashed = tanh_c[n, j]
            d = dc[n, j] + dm[n, j] * o[j] * (unit - squashed * squashed)
            do[j] = dm[n, j] * squashed * o[j] * (unit - o[j])
            di[j] = d * g[j] * i[j] * (unit - i[j])
            df[j] = d * c[n, j] * f[j] * (unit - f[j])
            dg[j] = d * i[j] * (unit - g[j] * g[j])
            dc[n, j] = d * f[j]


@njit(**ENTRY)
def _backward(counter, tasks, wh, wp, dh, dc, c, gates, tanh_c, dm, dz):
    """A few rows at a time. dh[t + 1] is the gradient of the output of step t, and each step adds
    to dh[t]; dm (B, H) is scratch.
    """
    T, B, _ = gates.shape
    task = add(counter, 0, 1)
    while task < tasks:
        low = task * B // tasks
        high = (task + 1) * B // tasks
        for t in range(T - 1, -1, -1):
            arriving = dh[t + 1, low:high]
            if len(wp):
                gemm(NO_TRANS, TRANS, arriving, wp, 0, dm[low:high])
                arriving = dm[low:high]
            _cell_backward(
                arriving, dc[low:high], c[t, low:high],
                gates[t, low:high], tanh_c[t, low:high], dz[t, low:high],
            )  # fmt: skip
            gemm(NO_TRANS, TRANS, dz[t, low:high], wh, 1, dh[t, low:high])
        task = add(counter, 0, 1)
    return True


def backward(
    params: Params, dh: ArrayTBP, dc: Array, c: ArrayTBH, gates: ArrayTB4H, tanh_c: ArrayTBH
) -> ArrayTB4H:
    """`recurrence_backward_numpy` of `moe_np.layers.lstm`, equal to rounding: -> dz (T, B, 4H).

    dh (T + 1, B, P) and dc (B, H) become the gradients of all outputs and of the first cells.
    """
    wh = read_only(params["wh"])
    wp = read_only(params["wp"] if "wp" in params else np.empty((0, 0), wh.dtype))
    dz = np.empty_like(gates)
    dm = np.empty_like(dc)
    arrays = (read_only(c), read_only(gates), read_only(tanh_c))
    tasks = _tasks(gates.shape[1])
    with one_blas_thread():
        share(_backward, (tasks, wh, wp, dh, dc, *arrays, dm, dz), _scratch(*gates.shape[:2], wh))
    return dz
