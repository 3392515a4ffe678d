"""The top-k softmax gate as compiled loops; the equations are in `moe_np.routing.top_k`, whose names these use.

One pass a token finds its k largest logits, the softmax over all experts and the weights. Renormalised, the backward
pass touches k of the E logits only, as the equation says, where the NumPy twin multiplies with mostly zeros.

The products with the router's matrix are shared out here, a block of tokens at a time, and not left to a BLAS of many
threads: OpenBLAS's threads go on spinning for some 25 ms after a product, on the cores that the layer wants next.
"""

import numpy as np
from numba import njit

from moe_np.kernels import activations
from moe_np.kernels.threads import share, threads


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _insert(logits, e, held, choice):
    """Put expert e among the first `held` of choice, which are sorted; the last of len(choice) falls out."""
    j = min(held, len(choice) - 1)
    while j > 0 and logits[e] > logits[choice[j - 1]]:
        choice[j] = choice[j - 1]
        j -= 1
    choice[j] = e


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _top_k(logits, choice):
    """The len(choice) largest logits of a token, largest first; the lowest index wins a tie."""
    k, E = len(choice), len(logits)
    for e in range(k):
        _insert(logits, e, e, choice)
    low = logits[choice[k - 1]]
    for e in range(k, E):
        if logits[e] > low:
            _insert(logits, e, k, choice)
            low = logits[choice[k - 1]]


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _normalise(out):
    total = out[0] - out[0]
    for e in range(len(out)):
        total += out[e]
    for e in range(len(out)):
        out[e] /= total


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", fastmath={"contract"})
def _softmax(logits, top, out):
    for e in range(len(logits)):  # apart from the sum: "reassoc" would undo the rounding inside exp
        out[e] = activations.exp(logits[e] - top)
    _normalise(out)


@njit(cache=True, nogil=True, error_model="numpy")
def _forward_tokens(lo, hi, logits, renormalise, probs, choice, weight, demand):
    k = choice.shape[1]
    kept = np.empty(k, logits.dtype)
    for n in range(lo, hi):
        _top_k(logits[n], choice[n])
        top = logits[n, choice[n, 0]]
        _softmax(logits[n], top, probs[n])
        demand[n] = False
        for j in range(k):
            demand[n, choice[n, j]] = True
            kept[j] = logits[n, choice[n, j]]
            weight[n, j] = probs[n, choice[n, j]]
        if renormalise:
            _softmax(kept, top, weight[n])


def forward(x, w, k, renormalise):
    """logits (N, E), probs (N, E), choice (N, k), weight (N, k), demand (N, E), as `top_k.route` has them."""
    (N, D), E = x.shape, w.shape[1]
    logits, probs = np.empty((N, E), x.dtype), np.empty((N, E), x.dtype)
    choice, weight, demand = np.empty((N, k), np.int64), np.empty((N, k), x.dtype), np.empty((N, E), bool)

    def block(_, lo, hi):
        np.dot(x[lo:hi], w, out=logits[lo:hi])
        _forward_tokens(lo, hi, logits, renormalise, probs, choice, weight, demand)

    _share_blocks(block, N, N * (D + 20) * E)
    return logits, probs, choice, weight, demand


def linear_backward(dlogits, x, w):
    """The same as `contract.linear_backward`, which calls it where the product is large."""
    (N, D), E = x.shape, w.shape[1]
    dx, dw = np.empty((N, D), x.dtype), np.empty((_blocks(N), D, E), x.dtype)

    def block(c, lo, hi):
        np.dot(dlogits[lo:hi], w.T, out=dx[lo:hi])
        np.dot(x[lo:hi].T, dlogits[lo:hi], out=dw[c])

    _share_blocks(block, N, 2 * N * D * E)
    return dx, dw.sum(axis=0)


def _blocks(N):
    """How many blocks N tokens are worked on in; no more depends on threads, and so the order of sums does not."""
    return min(8, max(1, N // 512))


def _share_blocks(function, N, work):
    """function(block, lo, hi) for all blocks, by several threads if there is enough to do."""
    n = _blocks(N)
    calls = [(c, c * N // n, (c + 1) * N // n) for c in range(n)]
    share(function, calls, [()] * (1 if work < 1 << 20 else threads()))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _backward_tokens(lo, hi, dkept, choice, x, wt, dx, dwt):
    """dx_n = Σ_j dkept_nj w of choice_nj, and dw of these tokens."""
    dwt[:] = 0
    for n in range(lo, hi):
        dx[n] = 0
        for j in range(choice.shape[1]):
            e, g = choice[n, j], dkept[n, j]
            for d in range(x.shape[1]):
                dx[n, d] += g * wt[e, d]
                dwt[e, d] += g * x[n, d]


def backward(dkept, choice, x, w):
    """Gradient (N, k) of the kept logits -> dx (N, D), dw (D, E): `contract.linear_backward` of k of the E columns."""
    (N, D), E = x.shape, w.shape[1]
    dx, dwt = np.empty((N, D), x.dtype), np.empty((_blocks(N), E, D), w.dtype)
    wt, x, dkept = (np.ascontiguousarray(a, w.dtype) for a in (w.T, x, dkept))
    _share_blocks(
        lambda c, lo, hi: _backward_tokens(lo, hi, dkept, choice, x, wt, dx, dwt[c]), N, 4 * N * D * choice.shape[1]
    )
    return dx, np.ascontiguousarray(dwt.sum(axis=0).T)
