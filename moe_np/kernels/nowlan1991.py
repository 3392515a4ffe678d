"""Mean loss and gradients of the mixture of 1991 with softmax experts and one variance, compiled;
the equations are in `moe_np.mixtures.nowlan1991`.

One call is one pass over all cases. The layout is that of `moe_np.kernels.machine.layout`: one row
of an array is one unit on all cases. The letters: N cases (padded), J and K inputs of experts and
gating network with the constant 1, C outputs, E experts.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
from numba import njit

from moe_np.base.types import Array, ArrayNC, ArrayND, Params
from moe_np.kernels.machine.exp import exp_negative
from moe_np.kernels.machine.jit_options import ENTRY
from moe_np.kernels.machine.layout import LANES, join_bias, split_bias, unit_rows
from moe_np.kernels.machine.units import UNITS, affine, dots, outputs, outputs_backward


class Forward(NamedTuple):
    """Intermediate results on all cases, one row per expert."""

    o: Annotated[np.ndarray, "E, C, N"]  # outputs of the experts
    p: Annotated[np.ndarray, "E, N"]  # totals of the gating network, then its outputs
    q: Annotated[np.ndarray, "E, N"]  # log of p exp(−‖d − o‖² / 2σ²), then the responsibilities
    top_p: Annotated[np.ndarray, "N"]  # the largest p and q before the softmax
    top_q: Annotated[np.ndarray, "N"]
    sum_p: Annotated[np.ndarray, "N"]  # sums of the exponentials, then 1 / sum
    sum_q: Annotated[np.ndarray, "N"]


@njit(**UNITS)
def _forward(x, z, d, W, U, sigma, f, room):
    """Experts, gating network and the exponents of the responsibilities: fills o, p, q and the
    largest of p and q.
    """
    o, p, q, top_p, top_q = f.o, f.p, f.q, f.top_p, f.top_q
    E, C, N = o.shape
    for i in range(N):
        top_p[i] = top_q[i] = -np.inf
    for e in range(E):
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


@njit(**UNITS)
def _normalise(f, is_case):
    """Both softmaxes: p and q become exponentials, sum_p and sum_q one over their sums. Returns the
    sum of the losses and the number of cases.
    """
    p, q, top_p, top_q, sum_p, sum_q = f.p, f.q, f.top_p, f.top_q, f.sum_p, f.sum_q
    E, N = p.shape
    for i in range(N):
        sum_p[i] = sum_q[i] = 0.0
    for e in range(E):
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
    return loss, cases


@njit(**ENTRY)
def gradients(x, z, d, W, U, sigma, dW, dU):
    """Fill dW (E, C, J) and dU (E, K) from x (J, N), z (K, N), d (C, N), W and U; return the mean
    loss.
    """
    E, C, _ = W.shape
    N = x.shape[1]
    f = Forward(
        np.empty((E, C, N)), np.empty((E, N)), np.empty((E, N)),
        np.empty(N), np.empty(N), np.empty(N), np.empty(N),
    )  # fmt: skip
    do = np.empty((C, N))
    room = np.empty(N)
    part = np.empty(N // LANES)
    _forward(x, z, d, W, U, sigma, f, room)
    loss, cases = _normalise(f, x[x.shape[0] - 1])  # the last row is 1 on cases, 0 at the padding
    o, p, q = f.o, f.p, f.q
    for e in range(E):
        for i in range(N):
            p[e, i] *= f.sum_p[i] / cases
            q[e, i] *= f.sum_q[i] / cases  # the share of a mean
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
