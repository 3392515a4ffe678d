"""Loss and gradients of `moe_np.mixtures.nowlan1991` with softmax experts, compiled: one pass over
all cases.

The layout of `moe_np.kernels.jacobs1991`: a row is one unit on all cases, biases are weights of a
last input that is always 1, cases are padded to a multiple of 8 with inputs that are all 0, and
sums over cases keep the same order.
"""

import numpy as np
from numba import njit

from moe_np.kernels.jacobs1991 import (
    _join,
    _rows,
    _unpack,
    affine,
    dots,
    exp_negative,
    squash,
    squash_backward,
)


@njit(cache=True, error_model="numpy", nogil=True)
def gradients(x, z, d, W, U, sigma, dW, dU):
    """Fill dW (E, C, J) and dU (E, K) from x (J, N), z (K, N), d (C, N), W and U; return the mean
    loss.
    """
    E, C, _ = W.shape
    N = x.shape[1]
    o, p, q = np.empty((E, C, N)), np.empty((E, N)), np.empty((E, N))
    do, room, part, one = np.empty((C, N)), np.empty(N), np.empty(N // 8), x[x.shape[0] - 1]
    top, sum_p, sum_q, top_q = np.empty(N), np.empty(N), np.empty(N), np.empty(N)
    for i in range(N):
        top[i] = top_q[i] = -np.inf
        sum_p[i] = sum_q[i] = 0.0
    for e in range(E):
        for c in range(C):
            affine(W[e, c], x, o[e, c])
        squash(o[e], room)
        affine(U[e], z, p[e])
        for i in range(N):
            q[e, i] = 0.0
        for c in range(C):
            for i in range(N):
                q[e, i] += (d[c, i] - o[e, c, i]) ** 2
        for i in range(N):
            q[e, i] = p[e, i] - q[e, i] / (
                2 * sigma * sigma
            )  # log of p exp(−‖d − o‖² / 2σ²), p not normalised
            top[i] = p[e, i] if p[e, i] > top[i] else top[i]
            top_q[i] = q[e, i] if q[e, i] > top_q[i] else top_q[i]
    for e in range(E):
        for i in range(N):
            p[e, i] = exp_negative(p[e, i] - top[i])
            q[e, i] = exp_negative(q[e, i] - top_q[i])
            sum_p[i] += p[e, i]
            sum_q[i] += q[e, i]
    loss, cases = 0.0, 0.0
    for i in range(N):
        loss += one[i] * ((np.log(sum_p[i]) + top[i]) - (np.log(sum_q[i]) + top_q[i]))
        cases += one[i]
        sum_p[i] = 1 / sum_p[i]
        sum_q[i] = 1 / sum_q[i]
    for e in range(E):
        for i in range(N):
            p[e, i] *= sum_p[i] / cases
            q[e, i] *= sum_q[i] / cases  # the responsibility, a mean's share
        for c in range(C):
            for i in range(N):
                do[c, i] = q[e, i] * (o[e, c, i] - d[c, i]) / (sigma * sigma)
        squash_backward(do, o[e], room)
        for c in range(C):
            dots(do[c], x, part, dW[e, c])
        for i in range(N):
            room[i] = p[e, i] - q[e, i]
        dots(room, z, part, dU[e])
    return loss / cases


def mean_loss_of(x, z, d, sigma):
    """loss_and_grads(params) for fixed cases; parameters and gradients as the equations have them."""
    x, z, d = _rows(x, 1.0), _rows(z, 1.0), _rows(d, 0.0)[:-1]

    def loss_and_grads(params):
        W, U = _join(params["W"].swapaxes(1, 2), params["b"]), _join(params["U"].T, params["c"])
        dW, dU = np.empty_like(W), np.empty_like(U)
        loss = gradients(x, z, d, W, U, sigma, dW, dU)
        return loss, _unpack(True, dW, dU)

    return loss_and_grads
