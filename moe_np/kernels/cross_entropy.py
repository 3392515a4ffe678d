"""Cross-entropy as compiled loops; the equations are in `moe_np.layers.cross_entropy`.

NumPy passes over the logits, the largest array of a language model, six times; here a row is read
while it lies in the nearest cache. `head_forward` goes further: it multiplies with the head's
matrix, computes the loss and multiplies back, a block of rows at a time, so that the logits of all
rows are never in memory together.

Maxima and sums run over LANES places side by side, so that they become vector instructions without
a licence to reorder: infinities and NaN keep their meaning (errata 20).
"""

import numpy as np

from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND
from moe_np.kernels.machine.blas import NO_TRANS, TRANS, gemm, read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED, exp
from moe_np.kernels.machine.jit_options import ENTRY, INLINE, INNER
from moe_np.kernels.machine.thread_pool import add, share

LANES = 64  # places of a maximum or a sum
LARGE = 1 << 16  # numbers up to which one thread works alone
ROWS = 16  # rows that a thread takes at a time
HEAD_ROWS = 128  # rows of logits that are in the cache at a time
MOST_TASKS = 8  # gradients of the head's matrix, which are summed; no number of threads is in it


def _scratch(operations):
    """The argument `scratch` of `share`, for threads without arrays: one or several threads."""
    return [()] * (1 if operations < LARGE else blas_threads())


@njit(**INLINE, fastmath=FUSED)
def _exp_or_0(x):
    """eˣ for x ≤ 0, and exactly 0 where it would be near the least number, as at −∞."""
    if isinstance(x, np.float32):
        return exp(x) if x > np.float32(-87) else np.float32(0)
    return exp(x) if x > -708.0 else 0.0


@njit(**INNER, fastmath=FUSED)
def _log_sum(row, lanes):
    """logsumexp of a row: NaN where it has NaN or +∞; −∞ counts as exactly 0. Scratch: lanes."""
    V = len(row)
    whole = V - V % LANES
    lanes[:] = -np.inf
    for low in range(0, whole, LANES):
        for j in range(LANES):
            value = row[low + j]
            lanes[j] = value if value > lanes[j] else lanes[j]
    top = lanes[0]
    for j in range(1, LANES):
        top = lanes[j] if lanes[j] > top else top
    for v in range(whole, V):
        top = row[v] if row[v] > top else top
    none = row.dtype.type(0)
    nan = row.dtype.type(np.nan)
    lanes[:] = 0
    for low in range(0, whole, LANES):
        for j in range(LANES):
            x = row[low + j] - top
            # x > 0 is false for NaN too, which is what a row with NaN or ∞ has here
            lanes[j] += _exp_or_0(x) if x <= none else nan
    total = none
    for j in range(LANES):
        total += lanes[j]
    for v in range(whole, V):
        x = row[v] - top
        total += _exp_or_0(x) if x <= none else nan
    return top + np.log(total)


@njit(**INNER, fastmath=FUSED)
def _gradient(row, lse, target, scale, smoothing, out, lanes):
    """out = scale (softmax(row) − q), which may take the place of the row. Scratch: lanes.

    From one array to the other the compiler would make no vector instructions: they may be the
    same. So the numbers go through the lanes.
    """
    V = len(row)
    whole = V - V % LANES
    uniform = smoothing / row.dtype.type(V)
    for low in range(0, whole, LANES):
        for j in range(LANES):
            lanes[j] = scale * (_exp_or_0(row[low + j] - lse) - uniform)
        for j in range(LANES):
            out[low + j] = lanes[j]
    for v in range(whole, V):
        out[v] = scale * (_exp_or_0(row[v] - lse) - uniform)
    out[target] -= scale * (row.dtype.type(1) - smoothing)


@njit(**INNER, fastmath=FUSED)
def _mean(row):
    """The mean of a row, in float64."""
    total = 0.0
    for v in range(len(row)):
        total += row[v]
    return total / len(row)


@njit(**INNER, fastmath=FUSED)
def _loss(row, lse, target, smoothing):
    """lse − Σ_v q_v row_v."""
    if smoothing == 0:
        return lse - row[target]
    kept = row.dtype.type(1) - smoothing
    return lse - kept * row[target] - smoothing * row.dtype.type(_mean(row))


@njit(**ENTRY)
def _forward(counter, logits, targets, valid, smoothing, losses, lse):
    """ROWS rows at a time."""
    lanes = np.empty(LANES, logits.dtype)
    low = add(counter, 0, ROWS)
    while low < len(logits):
        for n in range(low, min(low + ROWS, len(logits))):
            losses[n] = 0
            lse[n] = 0
            if valid[n]:
                lse[n] = _log_sum(logits[n], lanes)
                losses[n] = _loss(logits[n], lse[n], targets[n], smoothing)
        low = add(counter, 0, ROWS)
    return True


def forward(
    logits: ArrayNC, targets: ArrayN, smoothing: float, valid: ArrayN
) -> tuple[ArrayN, ArrayN]:
    """`forward_numpy` of `moe_np.layers.cross_entropy` without soft targets, equal to rounding."""
    losses = np.empty(len(logits), logits.dtype)
    lse = np.empty_like(losses)
    rows = (read_only(logits), read_only(targets), read_only(valid))
    share(_forward, (*rows, logits.dtype.type(smoothing), losses, lse), _scratch(logits.size))
    return losses, lse


@njit(**ENTRY)
def _backward(counter, logits, targets, valid, lse, scale, smoothing, out):
    """ROWS rows at a time; `out` may be the logits."""
    lanes = np.empty(LANES, logits.dtype)
    low = add(counter, 0, ROWS)
    while low < len(logits):
        for n in range(low, min(low + ROWS, len(logits))):
            if valid[n]:
                _gradient(logits[n], lse[n], targets[n], scale, smoothing, out[n], lanes)
            else:
                out[n] = 0
        low = add(counter, 0, ROWS)
    return True


def backward(
    scale: float,
    logits: ArrayNC,
    targets: ArrayN,
    smoothing: float,
    valid: ArrayN,
    lse: ArrayN,
    out: ArrayNC,
) -> ArrayNC:
    """`backward_numpy` of `moe_np.layers.cross_entropy` without soft targets: -> `out`."""
    real = logits.dtype.type
    rows = (read_only(logits), read_only(targets), read_only(valid), read_only(lse))
    share(_backward, (*rows, real(scale), real(smoothing), out), _scratch(logits.size))
    return out


# --- with the head --------------------------------------------------------------------------------


@njit(**ENTRY)
def _head(counter, x, w, op, targets, valid, scale, smoothing, losses, dx, dw, logits):
    """A range of rows at a time, in blocks of HEAD_ROWS: losses, dx, and dw of the range."""
    N = len(x)
    tasks = len(dw)
    other = NO_TRANS if op == TRANS else TRANS
    lanes = np.empty(LANES, x.dtype)
    task = add(counter, 0, 1)
    while task < tasks:
        end = (task + 1) * N // tasks
        dw[task] = 0
        for low in range(task * N // tasks, end, HEAD_ROWS):
            high = min(low + HEAD_ROWS, end)
            block = logits[: high - low]
            gemm(NO_TRANS, op, x[low:high], w, 0, block)
            for n in range(low, high):
                row = block[n - low]
                scores = read_only(row)
                if valid[n]:
                    lse = _log_sum(scores, lanes)
                    losses[n] = _loss(scores, lse, targets[n], smoothing)
                    _gradient(scores, lse, targets[n], scale, smoothing, row, lanes)
                else:
                    losses[n] = 0
                    row[:] = 0
            gemm(NO_TRANS, other, block, w, 0, dx[low:high])
            if op == TRANS:
                gemm(TRANS, NO_TRANS, block, x[low:high], 1, dw[task])
            else:
                gemm(TRANS, NO_TRANS, x[low:high], block, 1, dw[task])
        task = add(counter, 0, 1)
    return True


def head_forward(
    x: ArrayND, w: Array, tied: bool, targets: ArrayN, smoothing: float, valid: ArrayN
) -> tuple[ArrayN, ArrayND, Array]:
    """`head_forward_numpy` of `moe_np.layers.cross_entropy`, equal to rounding: losses (N,), and
    the gradients of their mean over the valid rows, dx (N, D) and dw.
    """
    N = len(x)
    V = len(w) if tied else w.shape[1]
    real = x.dtype.type
    scale = real(1 / max(np.count_nonzero(valid), 1))
    tasks = min(MOST_TASKS, max(1, N // (2 * HEAD_ROWS)))
    losses = np.empty(N, x.dtype)
    dx = np.empty(x.shape, x.dtype)
    dw = np.empty((tasks, *w.shape), w.dtype)
    arrays = (read_only(x), read_only(w), TRANS if tied else NO_TRANS, read_only(targets))
    results = (read_only(valid), scale, real(smoothing), losses, dx, dw)
    threads = len(_scratch(N * V)) if tasks > 1 else 1
    scratch = [(np.empty((min(HEAD_ROWS, N), V), x.dtype),) for _ in range(threads)]
    with one_blas_thread():
        share(_head, (*arrays, *results), scratch)
    return losses, dx, dw[0] if tasks == 1 else dw.sum(axis=0)
