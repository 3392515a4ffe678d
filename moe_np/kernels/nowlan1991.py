"""Mean loss and gradients of the mixture of 1991 with softmax experts and one variance, compiled;
the equations are in `moe_np.mixtures.nowlan1991`.

One call is one pass over all cases. The layout is that of `moe_np.kernels.machine.layout`: one row
of an array is one unit on all cases. The letters: N cases (padded), J and K inputs of experts and
gating network with the constant 1, C outputs, E experts.
"""

from collections.abc import Callable

import numpy as np

from moe_np.base.types import Array, ArrayNC, ArrayND, Params
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import exp_negative
from moe_np.kernels.machine.jit_options import ENTRY
from moe_np.kernels.machine.layout import LANES, join_bias, split_bias, unit_rows
from moe_np.kernels.machine.units import affine, dots, outputs, outputs_backward


@njit(**ENTRY)
def gradients(x, z, d, W, U, sigma, dW, dU):
    """Fill dW (E, C, J) and dU (E, K) from x (J, N), z (K, N), d (C, N), W and U; return the mean
    loss.
    """
    E, C, _ = W.shape
    N = x.shape[1]
    is_case = x[x.shape[0] - 1]  # 1 on cases, 0 at the padding
    o = np.empty((E, C, N))  # outputs of the experts
    p = np.empty((E, N))  # totals of the gating network, then its outputs
    q = np.empty((E, N))  # log of p exp(−‖d − o‖² / 2σ²), then the responsibilities
    do = np.empty((C, N))
    room = np.empty(N)
    part = np.empty(N // LANES)
    top_p = np.empty(N)
    top_q = np.empty(N)
    sum_p = np.empty(N)
    sum_q = np.empty(N)
    for i in range(N):
        top_p[i] = top_q[i] = -np.inf
        sum_p[i] = sum_q[i] = 0.0
    for e in range(E):  # experts, gating network, exponents
        for c in range(C):
            affine(W[e, c], x, o[e, c])
        outputs(o[e], room)
        affine(U[e], z, p[e])
        for i in range(N):
            q[e, i] = 0.0
        for c in range(C):
            for i in range(N):
                q[e, i] += (d[c, i] - o[e, c, i]) ** 2
        for i in range(N):
            q[e, i] = p[e, i] - q[e, i] / (2 * sigma * sigma)
            top_p[i] = p[e, i] if p[e, i] > top_p[i] else top_p[i]
            top_q[i] = q[e, i] if q[e, i] > top_q[i] else top_q[i]
    for e in range(E):  # both softmaxes, not yet divided by their sums
        for i in range(N):
            p[e, i] = exp_negative(p[e, i] - top_p[i])
            q[e, i] = exp_negative(q[e, i] - top_q[i])
            sum_p[i] += p[e, i]
            sum_q[i] += q[e, i]
    loss = 0.0
    cases = 0.0
    for i in range(N):
        loss += is_case[i] * ((np.log(sum_p[i]) + top_p[i]) - (np.log(sum_q[i]) + top_q[i]))
        cases += is_case[i]
        sum_p[i] = 1 / sum_p[i]
        sum_q[i] = 1 / sum_q[i]
    for e in range(E):  # gradients
        for i in range(N):
            p[e, i] *= sum_p[i] / cases
            q[e, i] *= sum_q[i] / cases  # the share of a mean
        for c in range(C):
            for i in range(N):
                do[c, i] = q[e, i] * (o[e, c, i] - d[c, i]) / (sigma * sigma)
        outputs_backward(do, o[e], room)
        for c in range(C):
            dots(do[c], x, part, dW[e, c])
        for i in range(N):
            room[i] = p[e, i] - q[e, i]
        dots(room, z, part, dU[e])
    return loss / cases


def mean_loss_of(
    x: ArrayND, z: Array, d: ArrayNC, sigma: float
) -> Callable[[Params], tuple[float, Params]]:
    """`mean_loss` of `moe_np.mixtures.nowlan1991` for fixed cases, equal to rounding: a function
    params -> (loss, gradients).
    """
    x_rows = unit_rows(x, 1.0)
    z_rows = unit_rows(z, 1.0)
    d_rows = unit_rows(d, 0.0)[:-1]

    def loss_and_grads(params):
        W = join_bias(params["W"].swapaxes(1, 2), params["b"])
        U = join_bias(params["U"].T, params["c"])
        dW = np.empty_like(W)
        dU = np.empty_like(U)
        loss = gradients(x_rows, z_rows, d_rows, W, U, sigma, dW, dU)
        return loss, split_bias(dW, dU, "U")

    return loss_and_grads
