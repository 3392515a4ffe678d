"""The sparse layer for few tokens as a compiled loop; the equation is in
`moe_np.layers.few_tokens`.

One thread, one expert after the other, those without tokens left out. No order of the assignments
is computed and no cache is kept: for a token or two that would take longer than the experts.
"""

import functools

import numpy as np

from moe_np.base.types import Array, ArrayA, ArrayND, Params
from moe_np.kernels.machine import activations
from moe_np.kernels.machine.blas import NO_TRANS, gemm, read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED
from moe_np.kernels.machine.jit_options import ENTRY, INNER
from moe_np.kernels.sparse_layer import ACTIVATIONS, GELU, RELU, SWIGLU


@njit(**INNER, fastmath=FUSED)
def _row_product(x, w, y):
    """y = x w for one row: w is read once, as fast as memory gives it."""
    D = len(x)
    y[:] = 0
    for d in range(0, D - D % 4, 4):
        a, b, c, e = x[d], x[d + 1], x[d + 2], x[d + 3]
        for j in range(len(y)):
            y[j] += (a * w[d, j] + b * w[d + 1, j]) + (c * w[d + 2, j] + e * w[d + 3, j])
    for d in range(D - D % 4, D):
        for j in range(len(y)):
            y[j] += x[d] * w[d, j]


@njit(**INNER)
def multiply(x, w, y):
    """y = x w for few rows. A product of one row by BLAS takes a third longer."""
    if len(x) == 1:
        _row_product(x[0], w, y[0])
    else:
        gemm(NO_TRANS, NO_TRANS, x, w, 0, y)


@njit(**ENTRY)
def run_experts(token, expert, weight, n_experts, x, w, activation, out):
    """out_n = Σ weight · expert(x_n). Parameters that an expert does not have are empty."""
    w1, b1, w3, w2, b2 = w
    A = len(token)
    H = w1.shape[2]
    rows = np.empty((A, x.shape[1]), x.dtype)
    place = np.empty(A, np.int64)
    z = np.empty((A, H), x.dtype)
    g = np.empty((A if activation == SWIGLU else 0, H), x.dtype)
    h = np.empty((A if activation != RELU else 0, H), x.dtype)
    y = np.empty((A, out.shape[1]), x.dtype)
    out[:] = 0
    none = np.int64(0)  # not 0, whose type is one of its own: an activation is compiled per type
    for m in range(n_experts):
        n = none
        for a in range(A):
            if expert[a] == m:
                for d in range(x.shape[1]):  # rows[n] = ... takes two seconds more to compile
                    rows[n, d] = x[token[a], d]
                place[n] = a
                n += 1
        if n == 0:
            continue
        multiply(rows[:n], w1[m % len(w1)], z[:n])
        if activation == SWIGLU:
            multiply(rows[:n], w3[m % len(w3)], g[:n])
            activations.swiglu_forward(none, n, z, g, h)
        elif activation == GELU:
            activations.gelu_forward(none, n, z, b1[m % len(b1)], h)
        else:
            activations.relu_forward(none, n, z, b1[m % len(b1)])
        hidden = z[:n] if activation == RELU else h[:n]
        multiply(hidden, w2[m % len(w2)], y[:n])
        for i in range(n):
            to = out[token[place[i]]]
            factor = weight[place[i]]
            for d in range(len(to)):
                v = y[i, d] + b2[m % len(b2), d] if activation != SWIGLU else y[i, d]
                to[d] += factor * v


@functools.cache
def absent(dtype: np.dtype) -> dict[str, Array]:
    """By name, empty arrays for the parameters that an expert does not have."""
    axes = {"w1": 3, "b1": 2, "w3": 3, "w2": 3, "b2": 2}
    return {name: np.empty((0,) * n, dtype) for name, n in axes.items()}


def forward(
    params: Params, x: ArrayND, assignments: tuple[ArrayA, ArrayA, ArrayA], E: int, name: str
) -> ArrayND:
    """`forward_numpy` of `moe_np.layers.sparse_layer` without its cache, equal to rounding.

    assignments   token, expert and weight; name is the expert's: relu, gelu or swiglu
    """
    token, expert, weight = assignments
    out = np.empty((len(x), params["w2"].shape[2]), x.dtype)
    arrays = (read_only(token, np.int64), read_only(expert, np.int64), read_only(weight, x.dtype))
    given = absent(x.dtype) | params
    weights = tuple(read_only(given[name]) for name in absent(x.dtype))
    run_experts(*arrays, E, read_only(x), weights, ACTIVATIONS[name], out)
    return out
