"""The top-k softmax gate as compiled loops; the equations are in `moe_np.routing.top_k`, whose names these use.

One pass a token finds its k largest logits, the softmax over all experts and the weights. Renormalised, the backward
pass touches k of the E logits only, as the equation says, where the NumPy twin multiplies with mostly zeros.
"""

import numpy as np
from numba import njit

from moe_np.kernels import activations
from moe_np.kernels.dispatch import share, threads

BLOCK = 2048  # tokens a thread takes at least


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(logits, e, held, choice):
    """Put expert e among the first `held` of choice, which are sorted; the last of len(choice) falls out."""
    j = min(held, len(choice) - 1)
    while j > 0 and logits[e] > logits[choice[j - 1]]:
        choice[j] = choice[j - 1]
        j -= 1
    choice[j] = e


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _normalise(out):
    total = out[0] - out[0]
    for e in range(len(out)):
        total += out[e]
    for e in range(len(out)):
        out[e] /= total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
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


def forward(logits, k, renormalise):
    """logits (N, E) -> probs (N, E), choice (N, k), weight (N, k), demand (N, E), as `top_k.route` has them."""
    N, E = logits.shape
    probs, choice, weight = np.empty_like(logits), np.empty((N, k), np.int64), np.empty((N, k), logits.dtype)
    arguments = (np.ascontiguousarray(logits), renormalise, probs, choice, weight, np.empty((N, E), bool))
    crew = min(threads(), max(1, N // BLOCK))
    if crew == 1:
        _forward_tokens(0, N, *arguments)
    else:
        share(_forward_tokens, [(t * N // crew, (t + 1) * N // crew, *arguments) for t in range(crew)])
    return probs, choice, weight, arguments[-1]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _backward_blocks(first, last, dkept, choice, x, wt, dx, dwt):
    """dx_n = Σ_j dkept_nj w of choice_nj, and each block's own dw, whose sum does not depend on who did which."""
    N, blocks = len(x), len(dwt)
    for c in range(first, last):
        dwt[c] = 0
        for n in range(c * N // blocks, (c + 1) * N // blocks):
            dx[n] = 0
            for j in range(choice.shape[1]):
                e, g = choice[n, j], dkept[n, j]
                for d in range(x.shape[1]):
                    dx[n, d] += g * wt[e, d]
                    dwt[c, e, d] += g * x[n, d]


def backward(dkept, choice, x, w):
    """Gradient (N, k) of the kept logits -> dx (N, D), dw (D, E): `contract.linear_backward` of k of the E columns."""
    blocks = min(8, max(1, len(x) // BLOCK))
    dx, dwt = np.empty(x.shape, x.dtype), np.empty((blocks, w.shape[1], w.shape[0]), w.dtype)
    wt, x, dkept = (np.ascontiguousarray(a, w.dtype) for a in (w.T, x, dkept))
    arguments, crew = (dkept, choice, x, wt, dx, dwt), min(threads(), blocks)
    if crew == 1:
        _backward_blocks(0, blocks, *arguments)
    else:
        share(_backward_blocks, [(t * blocks // crew, (t + 1) * blocks // crew, *arguments) for t in range(crew)])
    return dx, np.ascontiguousarray(dwt.sum(axis=0).T)
