"""The top-k softmax gate as compiled loops; the equations are in `moe_np.routing.top_k`, whose
names these use.

A row of logits is short, too short for vector instructions where there are eight experts: the loops
run over many tokens or over a whole block wherever they can, and what is done token by token is
inlined: a call takes longer. Renormalised, the backward pass touches k of the E logits only, as the
equation says, where the NumPy twin multiplies with mostly zeros.

The products with the router's matrix are shared out here, a block of tokens at a time, and not left
to a BLAS of many threads: OpenBLAS's threads go on spinning for some 25 ms after a product, on the
cores that the layer wants next.
"""

import numpy as np
from numba import njit

from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.kernels.machine import activations
from moe_np.kernels.machine.blas import PLAIN, TRANSPOSED, finite, fixed, gemm
from moe_np.kernels.machine.thread_pool import add, share

SOME = 80  # tokens at a time; 64 would put the rows of `left` in the same few places of the cache
LARGE = 1 << 20  # operations: with fewer, a second thread would come too late


@njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _lowest_free(choice, j):
    """The lowest expert that is not among choice[:j]."""
    e, m = 0, 0
    while m < j:
        e, m = (e + 1, 0) if choice[m] == e else (e, m + 1)
    return e


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _top_k(logits, choice, left, top, at):
    """The k largest of each row of logits (n, E), largest first; the lowest index wins a tie.

    k rounds over the experts, in each step for all tokens at once. Scratch: left (E, n), and top
    and at (n,).
    """
    for i in range(logits.shape[0]):
        for e in range(logits.shape[1]):
            left[e, i] = logits[i, e]
    for j in range(choice.shape[1]):
        for i in range(
            len(top)
        ):  # from a free one on: if the product overflowed, −inf may be all that is left
            at[i] = _lowest_free(choice[i], j)
            top[i] = left[at[i], i]
        for e in range(len(left)):
            for i in range(len(top)):
                better = left[e, i] > top[i]
                top[i] = left[e, i] if better else top[i]
                at[i] = e if better else at[i]
        for i in range(len(top)):
            choice[i, j] = at[i]
            left[at[i], i] = -np.inf


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", fastmath={"contract"})
def _exp(a):
    """a becomes eᵃ."""
    for i in range(len(a)):
        a[i] = activations.exp(a[i])


@njit(
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    error_model="numpy",
    fastmath={"reassoc", "nsz"},
)
def _normalise(out):
    total = out[0] - out[0]
    for e in range(len(out)):
        total += out[e]
    for e in range(len(out)):
        out[e] /= total


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(counter, sound, numbers, x, w, renormalise, logits, probs, choice, weight, demand):
    (N, E), k, blocks = logits.shape, choice.shape[1], len(sound)
    left, top, at = (
        np.empty(E * SOME, logits.dtype),
        np.empty(SOME, logits.dtype),
        np.empty(SOME, np.int32),
    )
    while True:
        c = add(counter, 0, 1)
        if c >= blocks:
            return True
        lo, hi = c * N // blocks, (c + 1) * N // blocks
        sound[c] = finite(numbers[lo * x.shape[1] : hi * x.shape[1]])
        if not sound[c]:
            continue
        gemm(PLAIN, PLAIN, x[lo:hi], w, 0, logits[lo:hi])
        for first in range(lo, hi, SOME):
            n = min(SOME, hi - first)
            _top_k(
                logits[first : first + n],
                choice[first : first + n],
                left[: E * n].reshape(E, n),
                top[:n],
                at[:n],
            )
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


def forward(x, w, k, renormalise):
    """logits (N, E), probs (N, E), choice (N, k), weight (N, k), demand (N, E), as `top_k.route`
    has them; None if a number of x is not finite.
    """
    (N, D), E = x.shape, w.shape[1]
    logits, probs = np.empty((N, E), x.dtype), np.empty((N, E), x.dtype)
    choice, weight, demand = (
        np.empty((N, k), np.int64),
        np.empty((N, k), x.dtype),
        np.empty((N, E), bool),
    )
    x, sound = fixed(x), np.empty(_blocks(N), bool)
    arguments = (sound, x.ravel(), x, fixed(w), renormalise, logits, probs, choice, weight, demand)
    crew = _crew(N * (D + 20) * E)
    with one_blas_thread():
        share(_forward, arguments, crew)
    return (logits, probs, choice, weight, demand) if sound.all() else None


@njit(cache=True, nogil=True, error_model="numpy")
def _linear_backward(counter, dlogits, x, w, dx, dw):
    blocks, c = len(dw), add(counter, 0, 1)
    while c < blocks:
        lo, hi = c * len(x) // blocks, (c + 1) * len(x) // blocks
        gemm(PLAIN, TRANSPOSED, dlogits[lo:hi], w, 0, dx[lo:hi])
        gemm(TRANSPOSED, PLAIN, x[lo:hi], dlogits[lo:hi], 0, dw[c])
        c = add(counter, 0, 1)
    return True


def linear_backward(dlogits, x, w):
    """The same as `contract.linear_backward`, which calls it where the product is large."""
    (N, D), E = x.shape, w.shape[1]
    dx, dw = np.empty((N, D), x.dtype), np.empty((_blocks(N), D, E), x.dtype)
    crew = _crew(2 * N * D * E)
    with one_blas_thread():
        share(_linear_backward, (fixed(dlogits, x.dtype), fixed(x), fixed(w), dx, dw), crew)
    return dx, dw.sum(axis=0)


def _blocks(N):
    """How many blocks N tokens are worked on in; no more depends on threads, and so the order of
    sums does not.
    """
    return min(8, max(1, N // 512))


def _crew(work):
    """What `share` wants of threads that own nothing: several, if there is enough to do."""
    return [()] * (1 if work < LARGE else blas_threads())


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _backward(counter, dweight, weight, choice, x, wt, dx, dwt):
    """The gradient g of the kept logits (through their softmax), dx_n = Σ_j g_nj w of choice_nj,
    and dw of these.
    """
    blocks, k, c = len(dwt), choice.shape[1], add(counter, 0, 1)
    while c < blocks:
        dwt[c] = 0
        for n in range(c * len(x) // blocks, (c + 1) * len(x) // blocks):
            dx[n] = 0
            mean = weight[n, 0] * dweight[n, 0]
            for j in range(1, k):
                mean += weight[n, j] * dweight[n, j]
            for j in range(k):
                e, g = choice[n, j], weight[n, j] * (dweight[n, j] - mean)
                for d in range(x.shape[1]):
                    dx[n, d] += g * wt[e, d]
                    dwt[c, e, d] += g * x[n, d]
        c = add(counter, 0, 1)
    return True


def backward(dweight, weight, choice, x, w):
    """dweight (N, k) of renormalised weights -> dx (N, D), dw (D, E): `top_k.route_backward` of k
    of the E logits.
    """
    (N, D), (_, E) = x.shape, w.shape
    dx, dwt = np.empty((N, D), x.dtype), np.empty((_blocks(N), E, D), w.dtype)
    arguments = (fixed(dweight, w.dtype), weight, choice, fixed(x, w.dtype), fixed(w.T), dx, dwt)
    share(_backward, arguments, _crew(4 * N * D * choice.shape[1]))
    return dx, np.ascontiguousarray(dwt.sum(axis=0).T)
