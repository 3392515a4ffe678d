"""Top-k softmax gate as compiled loops; the equations are in `moe_np.routing.top_k`.

A row of logits is short, too short for vector instructions where there are eight experts. So the
loops run over many tokens, or over a whole block, wherever they can; what is computed token by
token is inlined, because a call takes longer. Where the weights are renormalised, the backward pass
touches k of the E logits only, as the equation says; the NumPy twin multiplies mostly zeros.

The products with the router's matrix are divided among the threads here, a block of tokens at a
time, and not by a BLAS of many threads: OpenBLAS's threads spin for some 25 ms after a product, on
the cores that the layer needs next.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.machine import SMALL, blas_threads, one_blas_thread
from moe_np.base.types import ArrayDE, ArrayND, ArrayNE, ArrayNK
from moe_np.kernels.machine.blas import NO_TRANS, TRANS, all_finite, gemm, read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import exp
from moe_np.kernels.machine.jit_options import ENTRY, INLINE, INNER
from moe_np.kernels.machine.thread_pool import add, share

# Chosen by the time of router and layer, at the shape behind each; no record of it was kept:
#   python -m moe_np.experiments.layer_speed.thresholds top_k.NAME VALUE ... --shape N,D,E
GROUP = 80  # tokens at a time; 64 rows of `left` would share a few places of the cache: 4096,16,16
LARGE = 1 << 20  # operations up to which one thread works alone: 256,64,8
BLOCK = 512  # tokens that a thread takes at a time, or an eighth of many: 4096,64,8
MOST_BLOCKS = 8  # it does not depend on the number of threads, and so no sum does


class Gate(NamedTuple):
    """What the forward pass returns, as `top_k.forward_numpy` does."""

    logits: ArrayNE
    probs: ArrayNE
    choice: ArrayNK  # the largest first
    weight: ArrayNK
    demand: ArrayNE


def _blocks(n_tokens):
    """The number of blocks into which tokens are divided."""
    return min(MOST_BLOCKS, max(1, n_tokens // BLOCK))


def _scratch(operations):
    """The argument `scratch` of `share`, for threads without arrays: one or several threads."""
    return [()] * (1 if operations < LARGE else blas_threads())


# --- forward --------------------------------------------------------------------------------------


@njit(**INLINE)
def _lowest_free(choice, j):
    """The lowest expert that is not among choice[:j]."""
    e = 0
    m = 0
    while m < j:
        e, m = (e + 1, 0) if choice[m] == e else (e, m + 1)
    return e


@njit(**INNER)
def _top_k(logits, choice, left, top, at):
    """The k largest of each row of logits (n, E), the largest first; at a tie the lowest index.

    k passes over the experts, each for all tokens at once. Scratch: left (E, n), top and at (n,).
    """
    for i in range(logits.shape[0]):
        for e in range(logits.shape[1]):
            left[e, i] = logits[i, e]
    for j in range(choice.shape[1]):
        for i in range(len(top)):
            # from a free expert: where the product overflowed, all that is left can be −inf
            at[i] = _lowest_free(choice[i], j)
            top[i] = left[at[i], i]
        for e in range(len(left)):
            for i in range(len(top)):
                larger = left[e, i] > top[i]
                top[i] = left[e, i] if larger else top[i]
                at[i] = e if larger else at[i]
        for i in range(len(top)):
            choice[i, j] = at[i]
            left[at[i], i] = -np.inf


@njit(**INNER, fastmath={"contract"})
def _exp(a):
    """a becomes eᵃ."""
    for i in range(len(a)):
        a[i] = exp(a[i])


@njit(**INLINE, fastmath={"reassoc", "nsz"})
def _normalise(row):
    total = row[0] - row[0]
    for e in range(len(row)):
        total += row[e]
    for e in range(len(row)):
        row[e] /= total


@njit(**ENTRY)
def gate_blocks(counter, sound, x, w, renormalise, gate):
    """A block of tokens at a time: sound[block] = whether x is finite, and if so the gate."""
    logits, probs, choice, weight, demand = gate
    N, E = logits.shape
    D = x.shape[1]
    k = choice.shape[1]
    blocks = len(sound)
    numbers = x.reshape(-1)
    left = np.empty(E * GROUP, logits.dtype)
    top = np.empty(GROUP, logits.dtype)
    at = np.empty(GROUP, np.int32)
    while True:
        block = add(counter, 0, 1)
        if block >= blocks:
            return True
        lo = block * N // blocks
        hi = (block + 1) * N // blocks
        sound[block] = all_finite(numbers[lo * D : hi * D])
        if not sound[block]:
            continue
        gemm(NO_TRANS, NO_TRANS, x[lo:hi], w, 0, logits[lo:hi])
        for i in range(lo, hi, GROUP):
            j = min(i + GROUP, hi)
            _top_k(
                logits[i:j], choice[i:j],
                left[: E * (j - i)].reshape(E, j - i), top[: j - i], at[: j - i],
            )  # fmt: skip
        for n in range(lo, hi):
            largest = logits[n, choice[n, 0]]
            for e in range(E):
                probs[n, e] = logits[n, e] - largest
        _exp(probs[lo:hi].reshape(-1))
        for n in range(lo, hi):
            demand[n] = False
            _normalise(probs[n])
            for j in range(k):
                demand[n, choice[n, j]] = True
                weight[n, j] = probs[n, choice[n, j]]
            if renormalise:
                _normalise(weight[n])


def forward(x: ArrayND, w: ArrayDE, k: int, renormalise: bool) -> Gate | None:
    """`forward_numpy` of `moe_np.routing.top_k`, equal to rounding; None where x is not finite."""
    N, D = x.shape
    E = w.shape[1]
    gate = Gate(
        logits=np.empty((N, E), x.dtype),
        probs=np.empty((N, E), x.dtype),
        choice=np.empty((N, k), np.int64),
        weight=np.empty((N, k), x.dtype),
        demand=np.empty((N, E), bool),
    )
    sound = np.empty(_blocks(N), bool)
    arguments = (sound, read_only(x), read_only(w), renormalise, gate)
    if N * D * E < SMALL:
        gate_blocks(np.zeros(4, np.int64), *arguments)
    else:
        with one_blas_thread():
            share(gate_blocks, arguments, _scratch(N * (D + 20) * E))
    return gate if sound.all() else None


# --- backward -------------------------------------------------------------------------------------


@njit(**ENTRY, fastmath={"contract"})
def _backward(counter, dweight, weight, choice, x, wt, dx, dwt):
    """g = gradient of the kept logits (through their softmax), dx_n = Σ_j g_nj w of choice_nj, and
    the gradient of w, one per block.
    """
    blocks = len(dwt)
    k = choice.shape[1]
    block = add(counter, 0, 1)
    while block < blocks:
        dwt[block] = 0
        for n in range(block * len(x) // blocks, (block + 1) * len(x) // blocks):
            dx[n] = 0
            mean = weight[n, 0] * dweight[n, 0]
            for j in range(1, k):
                mean += weight[n, j] * dweight[n, j]
            for j in range(k):
                e = choice[n, j]
                g = weight[n, j] * (dweight[n, j] - mean)
                for d in range(x.shape[1]):
                    dx[n, d] += g * wt[e, d]
                    dwt[block, e, d] += g * x[n, d]
        block = add(counter, 0, 1)
    return True


def backward(
    dweight: ArrayNK, weight: ArrayNK, choice: ArrayNK, x: ArrayND, w: ArrayDE
) -> tuple[ArrayND, ArrayDE]:
    """dweight of renormalised weights -> (dx, dw): `route_backward` of `moe_np.routing.top_k`,
    through k of the E logits.
    """
    N, D = x.shape
    E = w.shape[1]
    dx = np.empty((N, D), x.dtype)
    dwt = np.empty((_blocks(N), E, D), w.dtype)
    dweight = read_only(dweight, w.dtype)
    choice = np.ascontiguousarray(choice)
    arguments = (dweight, weight, choice, read_only(x, w.dtype), read_only(w.T), dx, dwt)
    share(_backward, arguments, _scratch(4 * N * D * choice.shape[1]))
    return dx, np.ascontiguousarray(dwt.sum(axis=0).T)


@njit(**ENTRY)
def _linear_backward(counter, dlogits, x, w, dx, dw):
    """dx = dlogits wᵀ and dw = xᵀ dlogits, the latter one per block."""
    blocks = len(dw)
    block = add(counter, 0, 1)
    while block < blocks:
        lo = block * len(x) // blocks
        hi = (block + 1) * len(x) // blocks
        gemm(NO_TRANS, TRANS, dlogits[lo:hi], w, 0, dx[lo:hi])
        gemm(TRANS, NO_TRANS, x[lo:hi], dlogits[lo:hi], 0, dw[block])
        block = add(counter, 0, 1)
    return True


def linear_backward(dlogits: ArrayNE, x: ArrayND, w: ArrayDE) -> tuple[ArrayND, ArrayDE]:
    """`linear_backward` of `moe_np.routing.contract`, which calls this for a large product."""
    N, D = x.shape
    E = w.shape[1]
    dx = np.empty((N, D), x.dtype)
    dw = np.empty((_blocks(N), D, E), x.dtype)
    with one_blas_thread():
        arguments = (read_only(dlogits, x.dtype), read_only(x), read_only(w), dx, dw)
        share(_linear_backward, arguments, _scratch(2 * N * D * E))
    return dx, dw.sum(axis=0)
