"""The training loops of `moe_np.mixtures.jacobs1991`, compiled: a whole run to the stop rule in one
call.

The same equations as there, in another layout: one row of an array is one unit on all cases, so
that each inner loop runs over cases and becomes vector instructions. Biases are weights of a last
input that is always 1. Cases are padded to a multiple of 8 with inputs that are all 0, that last
one included, so padding adds 0 to every sum.

Sums over cases add eight parts side by side and then what is left in order. That order is written
down here rather than left to the compiler: the bits of a run depend neither on the width of the
machine's vectors nor on how many runs go on beside it.
"""

import numpy as np
from numba import njit

LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 6.93145751953125e-1, 1.42860682030941723212e-6
ROUND = 1.5 * 2.0**52  # adding it leaves the nearest whole number in the low bits


@njit(inline="always", error_model="numpy")
def exp_negative(x):
    """exp(x) for x ≤ 0: 2^n exp(r) with |r| ≤ ½ ln 2, exp(r) by its series to r¹². NaN stays NaN."""
    x = -700.0 if x < -700.0 else x
    shifted = x * LOG2E + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (1.0 + r) + (1 / 2 + r * (1 / 6)) * r2
    middle = (1 / 24 + r * (1 / 120)) + (1 / 720 + r * (1 / 5040)) * r2
    high = (1 / 40320 + r * (1 / 362880)) + (
        1 / 3628800 + r * (1 / 39916800) + r2 * (1 / 479001600)
    ) * r2
    two_to_n = np.int64((np.float64(shifted).view(np.int64) + 1023) << 52).view(np.float64)
    return (low + r4 * (middle + r4 * high)) * two_to_n


@njit(error_model="numpy")
def affine(w, x, out):
    """out = Σ_j w_j x_j, x (J, N) with J of at least 2."""
    last = x.shape[0] - 1
    for i in range(out.size):
        out[i] = w[0] * x[0, i] + w[last] * x[last, i]
    for j in range(1, last):
        for i in range(out.size):
            out[i] += w[j] * x[j, i]


@njit(error_model="numpy")
def dots(a, x, part, out):
    """out_j = Σ_i a_i x_ji, in the order described above. part is room to work in."""
    n = a.size // 8
    for j in range(x.shape[0]):
        for i in range(n):
            low = (a[i] * x[j, i] + a[n + i] * x[j, n + i]) + (
                a[2 * n + i] * x[j, 2 * n + i] + a[3 * n + i] * x[j, 3 * n + i]
            )
            high = (a[4 * n + i] * x[j, 4 * n + i] + a[5 * n + i] * x[j, 5 * n + i]) + (
                a[6 * n + i] * x[j, 6 * n + i] + a[7 * n + i] * x[j, 7 * n + i]
            )
            part[i] = low + high
        total = 0.0
        for i in range(n):
            total += part[i]
        out[j] = total


@njit
def ascend(w, lr, g):
    for j in range(w.size):
        w[j] += lr * g[j]


@njit
def copy(a, out):
    for j in range(a.size):
        out[j] = a[j]


@njit(error_model="numpy")
def squash(o, room):
    """In place: logistic if o has one row, a softmax over the rows if it has several. room (N,) is
    overwritten.
    """
    if o.shape[0] == 1:
        for i in range(room.size):
            s = o[0, i]
            e = exp_negative(-abs(s))
            o[0, i] = (1.0 if s >= 0 else e) / (1 + e)
        return
    for i in range(room.size):
        room[i] = -np.inf
    for c in range(o.shape[0]):
        for i in range(room.size):
            room[i] = o[c, i] if o[c, i] > room[i] else room[i]
    for c in range(o.shape[0]):
        for i in range(room.size):
            o[c, i] = exp_negative(o[c, i] - room[i])
    for i in range(room.size):
        room[i] = 0.0
    for c in range(o.shape[0]):
        for i in range(room.size):
            room[i] += o[c, i]
    for c in range(o.shape[0]):
        for i in range(room.size):
            o[c, i] /= room[i]


@njit(error_model="numpy")
def squash_backward(do, o, room):
    """In place: do becomes the gradient at the totals."""
    if o.shape[0] == 1:
        for i in range(room.size):
            do[0, i] *= o[0, i] * (1 - o[0, i])
        return
    for i in range(room.size):
        room[i] = 0.0
    for c in range(o.shape[0]):
        for i in range(room.size):
            room[i] += do[c, i] * o[c, i]
    for c in range(o.shape[0]):
        for i in range(room.size):
            do[c, i] = o[c, i] * (do[c, i] - room[i])


@njit(error_model="numpy")
def mean_squared_error(d, y, x, room, part, g):
    """Mean over cases of Σ_c (d_c − y_c)²; the last row of x says which are cases."""
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


@njit(inline="always", error_model="numpy")
def mixture_answer(x, d, W, U, o, p, q, y, sum_p, sum_q, room):
    """Experts, gate and eq. 3 on all cases: fills o and y, and p and q such that p · sum_p is the
    gate's output and q · sum_q the responsibility.
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
        squash(o[e], room)
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


@njit(cache=True, error_model="numpy", nogil=True)
def mixture_run(x, d, W, U, lr, stop, max_epochs, W_history, U_history):
    """Train W (E, C, J) and U (E, J) in place on x (J, N), d (C, N). Returns (updates made, squared
    error).
    """
    E, C, J = W.shape
    N = x.shape[1]
    o, p, q, y = np.empty((E, C, N)), np.empty((E, N)), np.empty((E, N)), np.empty((C, N))
    sum_p, sum_q, room, part = np.empty(N), np.empty(N), np.empty(N), np.empty(N // 8)
    do, g = np.empty((C, N)), np.empty(J)
    for epoch in range(max_epochs + 1):
        if epoch < len(W_history):
            copy(W.ravel(), W_history[epoch].ravel())
            copy(U.ravel(), U_history[epoch].ravel())
        mixture_answer(x, d, W, U, o, p, q, y, sum_p, sum_q, room)
        error = mean_squared_error(d, y, x, room, part, g)
        if epoch == max_epochs or not error > stop:
            return epoch, error
        for e in range(E):
            for c in range(C):
                for i in range(N):
                    do[c, i] = q[e, i] * sum_q[i] * (d[c, i] - o[e, c, i])  # −∂E/∂o
            squash_backward(do, o[e], room)
            for c in range(C):
                dots(do[c], x, part, g)
                ascend(W[e, c], lr, g)
            for i in range(N):
                room[i] = q[e, i] * sum_q[i] - p[e, i] * sum_p[i]  # −∂E/∂s
            dots(room, x, part, g)
            ascend(U[e], lr, g)
    return -1, np.nan


@njit(cache=True, error_model="numpy", nogil=True)
def net_run(x, d, W, V, lr, stop, max_epochs, W_history, V_history):
    """Train W (H, J) and V (C, H + 1) in place on x (J, N), d (C, N). Returns (updates made,
    squared error).
    """
    H, J = W.shape
    C, N = d.shape
    hidden, y, dy, room = np.empty((H + 1, N)), np.empty((C, N)), np.empty((C, N)), np.empty(N)
    part, g, g_out = np.empty(N // 8), np.empty(J), np.empty((C, H + 1))
    for i in range(N):
        hidden[H, i] = x[
            J - 1, i
        ]  # the hidden layer has a unit that is always 1 as well, and 0 at the padding
    for epoch in range(max_epochs + 1):
        if epoch < len(W_history):
            copy(W.ravel(), W_history[epoch].ravel())
            copy(V.ravel(), V_history[epoch].ravel())
        for h in range(H):
            affine(W[h], x, hidden[h])
            squash(hidden[h : h + 1], room)
        for c in range(C):
            affine(V[c], hidden, y[c])
        squash(y, room)
        error = mean_squared_error(d, y, x, room, part, g)
        if epoch == max_epochs or not error > stop:
            return epoch, error
        for c in range(C):
            for i in range(N):
                dy[c, i] = (d[c, i] - y[c, i]) * hidden[
                    H, i
                ]  # −∂E/∂y; 0 at the padding, where hidden units are ½
        squash_backward(dy, y, room)
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
            ascend(W[h], lr, g)
        for c in range(C):
            ascend(V[c], lr, g_out[c])
    return -1, np.nan


def _rows(a, last):
    """(N, J) as (J + 1, N padded): one row a column, and `last` (1 on cases, 0 at the padding)
    below them.
    """
    n = -(-len(a) // 8) * 8
    out = np.zeros((a.shape[1] + 1, n))
    out[:-1, : len(a)] = a.T
    out[-1, : len(a)] = last
    return out


def _join(weights, bias):
    """The bias as a last weight; in C order whatever the order of the weights, so that one compiled
    version serves.
    """
    return np.ascontiguousarray(np.concatenate([weights, bias[..., None]], axis=-1))


def train_to_stop(params, x, d, lr, stop, max_epochs, keep):
    """One whole run: (epochs, reached, squared error, params, history) as
    `moe_np.mixtures.jacobs1991.Run` has them.
    """
    mixture = "U" in params
    rows, wanted = _rows(x, 1.0), _rows(d, 0.0)[:-1]
    if mixture:
        first, second = (
            _join(params["W"].swapaxes(1, 2), params["b"]),
            _join(params["U"].T, params["c"]),
        )
    else:
        first, second = _join(params["W"].T, params["b"]), _join(params["V"].T, params["c"])
    room = (max_epochs + 1 if keep else 0,)
    histories = np.empty(room + first.shape), np.empty(room + second.shape)
    run = mixture_run if mixture else net_run
    epochs, error = run(rows, wanted, first, second, float(lr), float(stop), max_epochs, *histories)
    params = _unpack(mixture, first, second)
    history = _unpack(mixture, *(h[: epochs + 1].copy() for h in histories)) if keep else {}
    return int(epochs), bool(error <= stop), float(error), params, history


def _unpack(mixture, first, second):
    """Back to the keys and shapes of the equations; further axes in front are kept."""
    W = np.ascontiguousarray(first[..., :-1].swapaxes(-1, -2))
    second_weights = np.ascontiguousarray(second[..., :-1].swapaxes(-1, -2))
    return {
        "W": W,
        "b": first[..., -1].copy(),
        "U" if mixture else "V": second_weights,
        "c": second[..., -1].copy(),
    }
