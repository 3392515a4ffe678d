"""Training loops of the mixture of 1991 and of a net, compiled; the equations are in
`moe_np.mixtures.jacobs1991`.

One call is a whole run up to the stop rule. The layout is that of `moe_np.kernels.machine.layout`:
one row of an array is one unit on all cases. The letters: N cases (padded), J inputs with the
constant 1, C outputs, E experts, H hidden units.
"""

import numpy as np

from moe_np.base.types import ArrayNC, ArrayND, Params
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import exp_negative
from moe_np.kernels.machine.jit_options import ENTRY, INNER, PART
from moe_np.kernels.machine.layout import LANES, join_bias, split_bias, unit_rows
from moe_np.kernels.machine.units import affine, dots, outputs, outputs_backward


@njit(**INNER)
def _ascend(w, lr, g):
    for j in range(w.size):
        w[j] += lr * g[j]


@njit(**INNER)
def _copy(a, out):
    for j in range(a.size):
        out[j] = a[j]


@njit(**INNER)
def _mean_squared_error(d, y, x, room, part, g):
    """Mean over cases of Σ_c (d_c − y_c)²; the last row of x says which columns are cases."""
    for i in range(room.size):
        room[i] = 0.0
    for c in range(d.shape[0]):
        for i in range(room.size):
            room[i] += (d[c, i] - y[c, i]) ** 2
    dots(room, x, part, g)
    cases = 0.0
    for i in range(room.size):
        cases += x[x.shape[0] - 1, i]
    return g[x.shape[0] - 1] / cases


# --- the mixture ----------------------------------------------------------------------------------


@njit(**PART)
def _mixture_forward(
    x, d,
    W, U,
    o, p, q, y,  # outputs of the experts, of the gating network, responsibilities, mean output
    sum_p, sum_q, room,
):  # fmt: skip
    """Experts, gating network and eq. 3 on all cases: fills o and y, and p and q such that
    p · sum_p is the output of the gating network and q · sum_q the responsibility.
    """
    E, C, N = o.shape
    for i in range(N):
        sum_p[i] = 0.0
        sum_q[i] = 0.0
        for c in range(C):
            y[c, i] = 0.0
    for e in range(E):
        for c in range(C):
            affine(W[e, c], x, o[e, c])
        outputs(o[e], room)
        affine(U[e], x, p[e])
    for i in range(N):
        room[i] = -np.inf
    for e in range(E):
        for i in range(N):
            room[i] = p[e, i] if p[e, i] > room[i] else room[i]
    for e in range(E):
        for i in range(N):
            q[e, i] = 0.0
        for c in range(C):
            for i in range(N):
                q[e, i] -= 0.5 * (d[c, i] - o[e, c, i]) ** 2
        for i in range(N):
            p[e, i] = exp_negative(p[e, i] - room[i])
            sum_p[i] += p[e, i]
        for i in range(N):
            q[e, i] = p[e, i] * exp_negative(q[e, i])
            sum_q[i] += q[e, i]
        for c in range(C):
            for i in range(N):
                y[c, i] += p[e, i] * o[e, c, i]
    for i in range(N):
        sum_p[i] = 1 / sum_p[i]
        sum_q[i] = 1 / sum_q[i]
    for c in range(C):
        for i in range(N):
            y[c, i] *= sum_p[i]


@njit(**ENTRY)
def mixture_run(
    x, d,
    W, U,
    lr, stop, max_epochs,
    W_history, U_history,
):  # fmt: skip
    """Train W (E, C, J) and U (E, J) in place on x (J, N), d (C, N).

    Returns (updates made, squared error). The histories get the parameters before each update, as
    long as they have room.
    """
    E, C, J = W.shape
    N = x.shape[1]
    o = np.empty((E, C, N))
    p = np.empty((E, N))
    q = np.empty((E, N))
    y = np.empty((C, N))
    sum_p = np.empty(N)
    sum_q = np.empty(N)
    room = np.empty(N)
    part = np.empty(N // LANES)
    do = np.empty((C, N))
    g = np.empty(J)
    for epoch in range(max_epochs + 1):
        if epoch < len(W_history):
            for e in range(E):
                for c in range(C):
                    _copy(W[e, c], W_history[epoch, e, c])
                _copy(U[e], U_history[epoch, e])
        _mixture_forward(x, d, W, U, o, p, q, y, sum_p, sum_q, room)
        error = _mean_squared_error(d, y, x, room, part, g)
        if epoch == max_epochs or not error > stop:
            return epoch, error
        for e in range(E):
            for c in range(C):
                for i in range(N):
                    do[c, i] = q[e, i] * sum_q[i] * (d[c, i] - o[e, c, i])  # −∂E/∂o
            outputs_backward(do, o[e], room)
            for c in range(C):
                dots(do[c], x, part, g)
                _ascend(W[e, c], lr, g)
            for i in range(N):
                room[i] = q[e, i] * sum_q[i] - p[e, i] * sum_p[i]  # −∂E/∂s
            dots(room, x, part, g)
            _ascend(U[e], lr, g)
    return -1, np.nan


# --- the net --------------------------------------------------------------------------------------


@njit(**ENTRY)
def net_run(
    x, d,
    W, V,
    lr, stop, max_epochs,
    W_history, V_history,
):  # fmt: skip
    """Train W (H, J) and V (C, H + 1) in place on x (J, N), d (C, N); the rest as `mixture_run`."""
    H, J = W.shape
    C, N = d.shape
    hidden = np.empty((H + 1, N))
    y = np.empty((C, N))
    dy = np.empty((C, N))
    room = np.empty(N)
    part = np.empty(N // LANES)
    g = np.empty(J)
    g_out = np.empty((C, H + 1))
    for i in range(N):
        hidden[H, i] = x[J - 1, i]  # the constant 1 of the hidden layer; 0 at the padding
    for epoch in range(max_epochs + 1):
        if epoch < len(W_history):
            for h in range(H):
                _copy(W[h], W_history[epoch, h])
            for c in range(C):
                _copy(V[c], V_history[epoch, c])
        for h in range(H):
            affine(W[h], x, hidden[h])
            outputs(hidden[h : h + 1], room)
        for c in range(C):
            affine(V[c], hidden, y[c])
        outputs(y, room)
        error = _mean_squared_error(d, y, x, room, part, g)
        if epoch == max_epochs or not error > stop:
            return epoch, error
        for c in range(C):
            for i in range(N):
                # −∂E/∂y; times 0 at the padding, where the hidden units are ½
                dy[c, i] = (d[c, i] - y[c, i]) * hidden[H, i]
        outputs_backward(dy, y, room)
        for c in range(C):
            dots(dy[c], hidden, part, g_out[c])
        for h in range(H):
            for i in range(N):
                room[i] = 0.0
            for c in range(C):
                for i in range(N):
                    room[i] += V[c, h] * dy[c, i]
            for i in range(N):
                room[i] *= hidden[h, i] * (1 - hidden[h, i])
            dots(room, x, part, g)
            _ascend(W[h], lr, g)
        for c in range(C):
            _ascend(V[c], lr, g_out[c])
    return -1, np.nan


# --- a whole run ----------------------------------------------------------------------------------


def train_to_stop(
    params: Params,
    x: ArrayND,
    d: ArrayNC,
    lr: float,
    stop: float,
    max_epochs: int,
    keep: bool,
) -> tuple[int, bool, float, Params, Params]:
    """`train_to_stop` of `moe_np.mixtures.jacobs1991`, equal to rounding: the fields of its `Run`,
    (epochs, reached, squared error, params, history).
    """
    mixture = "U" in params
    if mixture:
        run = mixture_run
        first = join_bias(params["W"].swapaxes(1, 2), params["b"])
        second = join_bias(params["U"].T, params["c"])
    else:
        run = net_run
        first = join_bias(params["W"].T, params["b"])
        second = join_bias(params["V"].T, params["c"])
    room = max_epochs + 1 if keep else 0
    histories = [np.empty((room, *a.shape)) for a in (first, second)]
    rows = unit_rows(x, 1.0)
    targets = unit_rows(d, 0.0)[:-1]
    epochs, error = run(
        rows, targets, first, second, float(lr), float(stop), max_epochs, *histories
    )
    name = "U" if mixture else "V"
    params = split_bias(first, second, name)
    history = split_bias(*(h[: epochs + 1].copy() for h in histories), name) if keep else {}
    return int(epochs), bool(error <= stop), float(error), params, history
