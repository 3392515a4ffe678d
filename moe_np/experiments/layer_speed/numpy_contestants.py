"""Contestants of the bench that need no other library: our layer, its products alone, and NumPy.

A contestant is prepare(problem) -> step(backward) (`problem.Prepare`).
"""

import functools
from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import numerics
from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.base.types import Array
from moe_np.experiments.layer_speed.problem import EXPERTS, Problem, Step
from moe_np.layers import sparse_layer
from moe_np.routing import contract, top_k


def moe_layer(p: Problem) -> Step:
    """This package: `routing.top_k` and `layers.sparse_layer`."""
    expert = EXPERTS[p.kind]
    workspace = {}

    def step(backward):
        routing, gate = top_k.route(p.router, p.x, k=p.shape.k, renormalise=True)
        out, cache = sparse_layer.forward(p.params, p.x, routing, expert, workspace=workspace)
        if not backward:
            return out
        dx, grads, dweight = sparse_layer.backward(p.dout, cache)
        dx_gate, router = top_k.route_backward(dweight, None, gate)
        dx += dx_gate
        return out, dx, {"router": router["w"], **grads}

    return step


# --- the products of the layer, alone -------------------------------------------------------------


class Matrices(NamedTuple):
    rows: Array
    w1: Array
    w3: Array
    w2: Array
    a: Array
    b: Array
    y: Array
    drows: Array
    dw1: Array
    dw3: Array
    dw2: Array


@functools.cache
def _product_loops():
    import numba

    from moe_np.kernels.machine.blas import NO_TRANS, TRANS, gemm
    from moe_np.kernels.machine.thread_pool import add

    @numba.njit(nogil=True)
    def forward(counter, tasks, gated, matrices, dh):
        rows, w1, w3, w2, a, b, y, _, _, _, _ = matrices
        t = add(counter, 0, 1)
        while t < len(tasks):
            m, lo, hi, _ = tasks[t]
            gemm(NO_TRANS, NO_TRANS, rows[lo:hi], w1[m], 0, a[lo:hi])
            if gated:
                gemm(NO_TRANS, NO_TRANS, rows[lo:hi], w3[m], 0, b[lo:hi])
            gemm(NO_TRANS, NO_TRANS, a[lo:hi], w2[m], 0, y[lo:hi])
            t = add(counter, 0, 1)
        return True

    @numba.njit(nogil=True)
    def backward(counter, tasks, gated, matrices, dh):
        rows, w1, w3, w2, a, _, y, drows, dw1, dw3, dw2 = matrices
        t = add(counter, 0, 1)
        while t < len(tasks):
            m, lo, hi, _ = tasks[t]
            n = hi - lo
            gemm(NO_TRANS, TRANS, y[lo:hi], w2[m], 0, dh[:n])
            gemm(TRANS, NO_TRANS, a[lo:hi], y[lo:hi], 0, dw2[m])
            gemm(TRANS, NO_TRANS, rows[lo:hi], dh[:n], 0, dw1[m])
            gemm(NO_TRANS, TRANS, dh[:n], w1[m], 0, drows[lo:hi])
            if gated:
                gemm(TRANS, NO_TRANS, rows[lo:hi], dh[:n], 0, dw3[m])
                gemm(NO_TRANS, TRANS, dh[:n], w3[m], 1, drows[lo:hi])
            t = add(counter, 0, 1)
        return True

    return forward, backward


def products_alone(p: Problem) -> Step:
    """The matrix products of our layer and nothing else, of the same sizes by the same threads: no
    router, no activation, no sums. step returns y, or (y, drows, {"w1", "w2"}).
    """
    from moe_np.kernels.machine import thread_pool

    routing, _ = top_k.route(p.router, p.x, k=p.shape.k, renormalise=True)
    s = kernels.sparse_layer.sort(*routing[:3], *routing.demand.shape)
    plan = kernels.sparse_layer.plan(s.offsets)
    rows = p.x[s.token]
    w1 = p.params["w1"]
    w2 = p.params["w2"]
    a, b = (np.ones((len(rows), p.shape.hidden), rows.dtype) for _ in range(2))
    dw1, dw3, dw2 = (np.zeros_like(w) for w in (w1, w1, w2))
    matrices = Matrices(
        rows, w1, p.params.get("w3", w1), w2, a, b, rows.copy(), rows.copy(), dw1, dw3, dw2
    )
    arguments = (plan.tasks, "w3" in p.params, matrices)
    size = (plan.longest, p.shape.hidden)
    scratch = [(np.ones(size, rows.dtype),) for _ in range(blas_threads())]

    def step(backward):
        with one_blas_thread():
            for loop in _product_loops()[: 1 + backward]:
                thread_pool.share(loop, arguments, scratch)
        y = matrices.y
        return (y, matrices.drows, {"w1": dw1, "w2": dw2}) if backward else y

    return step


# --- plain NumPy ----------------------------------------------------------------------------------


def _network(kind, w, x):
    """One expert, forward: -> (y, what its backward pass needs)."""
    if kind == "swiglu":
        a = x @ w["w1"]
        b = x @ w["w3"]
        s = numerics.sigmoid(a)
        h = a * s
        h *= b
        return h @ w["w2"], (a, b, s, h)
    h = x @ w["w1"]
    h += w["b1"]
    np.maximum(h, 0, out=h)
    y = h @ w["w2"]
    y += w["b2"]
    return y, (h,)


def _network_backward(kind, w, x, dy, kept):
    dh = dy @ w["w2"].T
    if kind == "swiglu":
        a, b, s, h = kept
        da = 1 - s
        da *= a
        da += 1
        da *= s
        da *= b
        da *= dh
        dh *= a
        dh *= s
        dx = da @ w["w1"].T
        dx += dh @ w["w3"].T
        return dx, {"w1": x.T @ da, "w3": x.T @ dh, "w2": h.T @ dy}
    (h,) = kept
    dh *= h > 0
    return dh @ w["w1"].T, {"w1": x.T @ dh, "b1": dh.sum(0), "w2": h.T @ dy, "b2": dy.sum(0)}


def dense_numpy(p: Problem, hidden: int | None = None) -> Step:
    """One network on all tokens, no router. Its hidden size is k·H unless given: the same number of
    operations as the active experts.
    """
    hidden = p.shape.k * p.shape.hidden if hidden is None else hidden
    params = EXPERTS[p.kind].init(np.random.default_rng(0), p.shape.d, 1, hidden, dtype=np.float32)
    w = {name: v[0] for name, v in params.items()}

    def step(backward):
        out, kept = _network(p.kind, w, p.x)
        return (out, *_network_backward(p.kind, w, p.x, p.dout, kept)) if backward else out

    return step


def numpy_mask_loop(p: Problem) -> Step:
    """The usual loop over the experts, with a mask of the tokens that chose the expert."""
    k = p.shape.k

    def step(backward):
        logits = p.x @ p.router["w"]
        chosen = contract.top_k(logits, k)
        weight = numerics.softmax(np.take_along_axis(logits, chosen, axis=1))
        out = np.zeros_like(p.x)
        dx = np.zeros_like(p.x)
        dlogits = np.zeros_like(logits)
        dweight = np.zeros_like(weight)
        grads = {name: np.zeros_like(v) for name, v in p.params.items()}
        for m in range(p.shape.experts):
            token, j = np.nonzero(chosen == m)
            if len(token) == 0:
                continue
            rows = p.x[token]
            w = {name: v[m] for name, v in p.params.items()}
            y, kept = _network(p.kind, w, rows)
            weights = weight[token, j, None]
            out[token] += weights * y
            if backward:
                arriving = p.dout[token]
                dweight[token, j] = (arriving * y).sum(axis=1)
                drows, expert_grads = _network_backward(p.kind, w, rows, weights * arriving, kept)
                dx[token] += drows
                for name, g in expert_grads.items():
                    grads[name][m] = g
        if not backward:
            return out
        np.put_along_axis(dlogits, chosen, numerics.softmax_backward(dweight, weight), axis=1)
        dx += dlogits @ p.router["w"].T
        return out, dx, {"router": p.x.T @ dlogits, **grads}

    return step
