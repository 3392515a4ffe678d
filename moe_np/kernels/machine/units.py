"""Layers of units for compiled loops: weighted sums, logistic and softmax outputs, sums over cases.

The layout is that of `moe_np.kernels.machine.layout`: one row is one unit on all cases. The
letters: N cases (padded), J inputs with the constant 1.

A sum over cases adds eight parts side by side, and then the results in order. The order is written
here and not left to the compiler: so the bits of a run depend neither on the width of the machine's
vectors nor on the number of runs at the same time.
"""

import numpy as np
from numba import njit

from moe_np.kernels.machine.exp import exp_negative
from moe_np.kernels.machine.jit_options import INNER
from moe_np.kernels.machine.layout import LANES


@njit(**INNER)
def affine(w, x, out):
    """out = Σ_j w_j x_j for x (J, N) with J of at least 2."""
    last = x.shape[0] - 1
    for i in range(out.size):
        out[i] = w[0] * x[0, i] + w[last] * x[last, i]
    for j in range(1, last):
        for i in range(out.size):
            out[i] += w[j] * x[j, i]


@njit(**INNER)
def dots(a, x, part, out):
    """out_j = Σ_i a_i x_ji, in the order described above. Scratch: part (N / LANES,)."""
    n = a.size // LANES
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


@njit(**INNER)
def outputs(o, room):
    """In place: logistic where o has one row, a softmax over the rows where it has several.
    Scratch: room (N,).
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


@njit(**INNER)
def outputs_backward(do, o, room):
    """In place: do becomes the gradient with respect to the weighted sums."""
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
