"""Who takes part in `moe_np.experiments.layer_speed.bench`: our layer, and the same in plain NumPy
and in PyTorch.

A contestant is prepare(problem) -> step(backward), and step returns out (N, D), or with the
backward pass (out, dx, {name: gradient}). The statement in PyTorch is our own and serves the parity
tests as well.
"""

import functools
import os
import threading
import time
from typing import NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.layers import experts, sparse_layer
from moe_np.routing import contract, top_k

EXPERTS = {"swiglu": experts.SWIGLU, "relu": experts.RELU}


class Shape(NamedTuple):
    tokens: int
    d: int
    experts: int
    k: int = 2

    @property
    def hidden(self):
        return 4 * self.d


class Problem(NamedTuple):
    kind: str
    shape: Shape
    router: dict
    params: dict
    x: np.ndarray
    dout: np.ndarray


def problem(kind, shape, dtype=np.float32):
    """The same data for the same arguments, in whatever process."""
    rng = np.random.default_rng(0)
    x, dout = (
        rng.standard_normal((shape.tokens, shape.d), np.float32).astype(dtype) for _ in range(2)
    )
    router = top_k.init(rng, shape.d, shape.experts, dtype=dtype)
    params = EXPERTS[kind].init(rng, shape.d, shape.experts, shape.hidden, dtype=dtype)
    return Problem(kind, shape, router, params, x, dout)


def moe_np(p):
    expert, workspace = EXPERTS[p.kind], {}

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


@functools.cache
def _product_loops():
    import numba

    from moe_np.kernels.machine.blas import PLAIN, TRANSPOSED, gemm
    from moe_np.kernels.machine.thread_pool import add

    @numba.njit(nogil=True)
    def forward(counter, tasks, gated, rows, w1, w3, w2, a, b, y, *_):
        t = add(counter, 0, 1)
        while t < len(tasks):
            m, lo, hi, _ = tasks[t]
            gemm(PLAIN, PLAIN, rows[lo:hi], w1[m], 0, a[lo:hi])
            if gated:
                gemm(PLAIN, PLAIN, rows[lo:hi], w3[m], 0, b[lo:hi])
            gemm(PLAIN, PLAIN, a[lo:hi], w2[m], 0, y[lo:hi])
            t = add(counter, 0, 1)
        return True

    @numba.njit(nogil=True)
    def backward(counter, tasks, gated, rows, w1, w3, w2, a, b, y, drows, dw1, dw3, dw2, dh):
        t = add(counter, 0, 1)
        while t < len(tasks):
            m, lo, hi, _ = tasks[t]
            n = hi - lo
            gemm(PLAIN, TRANSPOSED, y[lo:hi], w2[m], 0, dh[:n])
            gemm(TRANSPOSED, PLAIN, a[lo:hi], y[lo:hi], 0, dw2[m])
            gemm(TRANSPOSED, PLAIN, rows[lo:hi], dh[:n], 0, dw1[m])
            gemm(PLAIN, TRANSPOSED, dh[:n], w1[m], 0, drows[lo:hi])
            if gated:
                gemm(TRANSPOSED, PLAIN, rows[lo:hi], dh[:n], 0, dw3[m])
                gemm(PLAIN, TRANSPOSED, dh[:n], w3[m], 1, drows[lo:hi])
            t = add(counter, 0, 1)
        return True

    return forward, backward


def products_alone(p):
    """The matrix products of our layer and nothing else, of the same sizes by the same threads: no
    router, no sums.
    """
    from moe_np import kernels
    from moe_np.kernels.machine import blas_threads, thread_pool

    routing, _ = top_k.route(p.router, p.x, k=p.shape.k, renormalise=True)
    s, crew = kernels.sparse_layer.sort(*routing[:3], *routing.demand.shape), blas_threads.threads()
    plan, rows, H = kernels.sparse_layer.plan(s.offsets), p.x[s.token], p.shape.hidden
    w1, w2, gated = p.params["w1"], p.params["w2"], "w3" in p.params
    w3 = p.params.get("w3", w1)
    a, b, y, drows = (
        np.ones((len(rows), H), rows.dtype),
        np.ones((len(rows), H), rows.dtype),
        rows.copy(),
        rows.copy(),
    )
    dw1, dw3, dw2 = np.zeros_like(w1), np.zeros_like(w1), np.zeros_like(w2)
    arguments = (plan.tasks, gated, rows, w1, w3, w2, a, b, y, drows, dw1, dw3, dw2)
    own = [(np.ones((plan.longest, H), rows.dtype),) for _ in range(crew)]

    def step(backward):
        with blas_threads.one_blas_thread():
            for loop in _product_loops()[: 1 + backward]:
                thread_pool.share(loop, arguments, own)
        return (y, drows, {"w1": dw1, "w2": dw2}) if backward else y

    return step


def _network(kind, w, x):
    """One expert in plain NumPy, forward: -> (y, what its backward pass needs)."""
    if kind == "swiglu":
        a, b = x @ w["w1"], x @ w["w3"]
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


def dense_numpy(p, hidden=None):
    """One network on all tokens, of hidden size k·H unless told: as many operations as the experts
    do.
    """
    hidden = p.shape.k * p.shape.hidden if hidden is None else hidden
    params = EXPERTS[p.kind].init(np.random.default_rng(0), p.shape.d, 1, hidden, dtype=np.float32)
    w = {k: v[0] for k, v in params.items()}

    def step(backward):
        out, kept = _network(p.kind, w, p.x)
        return (out, *_network_backward(p.kind, w, p.x, p.dout, kept)) if backward else out

    return step


def numpy_mask_loop(p):
    E, k = p.shape.experts, p.shape.k

    def step(backward):
        logits = p.x @ p.router["w"]
        chosen = contract.top_k(logits, k)
        weight = numerics.softmax(np.take_along_axis(logits, chosen, axis=1))
        out, dx, dlogits = np.zeros_like(p.x), np.zeros_like(p.x), np.zeros_like(logits)
        dweight, grads = (
            np.zeros_like(weight),
            {name: np.zeros_like(v) for name, v in p.params.items()},
        )
        for m in range(E):
            token, j = np.nonzero(chosen == m)
            if len(token) == 0:
                continue
            rows, w = p.x[token], {name: v[m] for name, v in p.params.items()}
            y, kept = _network(p.kind, w, rows)
            out[token] += weight[token, j, None] * y
            if backward:
                arriving = p.dout[token]
                dweight[token, j] = (arriving * y).sum(axis=1)
                drows, own = _network_backward(
                    p.kind, w, rows, weight[token, j, None] * arriving, kept
                )
                dx[token] += drows
                for name, g in own.items():
                    grads[name][m] = g
        if not backward:
            return out
        np.put_along_axis(dlogits, chosen, numerics.softmax_backward(dweight, weight), axis=1)
        dx += dlogits @ p.router["w"].T
        return out, dx, {"router": p.x.T @ dlogits, **grads}

    return step


def _torch_leaves(p):
    import torch

    torch.set_num_threads(cores())
    leaves = {"x": p.x, "router": p.router["w"], **p.params}
    return {name: torch.tensor(a, requires_grad=True) for name, a in leaves.items()}, torch.tensor(
        p.dout
    )


def _torch_step(leaves, dout, compute):
    import torch

    def step(backward):
        if not backward:
            with torch.no_grad():
                return compute().numpy()
        for leaf in leaves.values():
            leaf.grad = None
        out = compute()
        out.backward(dout)
        grads = {name: leaf.grad.numpy() for name, leaf in leaves.items()}
        return out.detach().numpy(), grads.pop("x"), grads

    return step


def torch_loop(p):
    import torch
    from torch.nn import functional as F

    t, dout = _torch_leaves(p)

    def compute():
        weight, chosen = (t["x"] @ t["router"]).topk(p.shape.k, dim=1)
        weight = weight.softmax(dim=1)
        out = torch.zeros_like(t["x"])
        own = {
            name: t[name].unbind() for name in p.params
        }  # a gradient of t["w1"][m] is as large as all of t["w1"]
        for m in range(p.shape.experts):
            token, j = torch.where(chosen == m)
            rows = t["x"][token]
            if p.kind == "swiglu":
                h = F.silu(rows @ own["w1"][m]) * (rows @ own["w3"][m])
                y = h @ own["w2"][m]
            else:
                y = F.relu(rows @ own["w1"][m] + own["b1"][m]) @ own["w2"][m] + own["b2"][m]
            out = out.index_add(0, token, weight[token, j, None] * y)
        return out

    return _torch_step(t, dout, compute)


def mixtral_block(p, implementation):
    """Transformers' Mixtral block with our weights in it."""
    import torch
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    s = p.shape
    config = MixtralConfig(
        hidden_size=s.d,
        intermediate_size=s.hidden,
        num_local_experts=s.experts,
        num_experts_per_tok=s.k,
    )
    config._experts_implementation = implementation
    block = MixtralSparseMoeBlock(config).to(torch.tensor(p.x).dtype)
    stacked = np.concatenate([p.params["w1"], p.params["w3"]], axis=2).transpose(0, 2, 1)
    with torch.no_grad():
        block.gate.weight.copy_(torch.tensor(p.router["w"].T.copy()))
        block.experts.gate_up_proj.copy_(torch.tensor(stacked.copy()))
        block.experts.down_proj.copy_(torch.tensor(p.params["w2"].transpose(0, 2, 1).copy()))
    return block


def transformers_mixtral(p, implementation=None):
    """`implementation` is one of Transformers' own; None takes the faster of two for every call."""
    import torch

    if implementation is None:
        both = [transformers_mixtral(p, name) for name in ("eager", "grouped_mm")]
        forward = min(both, key=lambda step: least_time(step, False, at_least=0.1))
        training = min(both, key=lambda step: least_time(step, True, at_least=0.1))
        return lambda backward: (training if backward else forward)(backward)
    torch.set_num_threads(cores())
    block, x, H = (
        mixtral_block(p, implementation),
        torch.tensor(p.x, requires_grad=True),
        p.shape.hidden,
    )
    leaves = {"x": x, **dict(block.named_parameters())}
    step = _torch_step(leaves, torch.tensor(p.dout), lambda: block(x[None])[0])

    def in_our_names(backward):
        if not backward:
            return step(False)
        out, dx, g = step(True)
        both = g["experts.gate_up_proj"].transpose(0, 2, 1)
        ours = {
            "w1": both[..., :H],
            "w3": both[..., H:],
            "w2": g["experts.down_proj"].transpose(0, 2, 1),
        }
        return out, dx, {"router": g["gate.weight"].T, **ours}

    return in_our_names


CONTESTANTS = {
    "moe_np": (moe_np, ()),
    "products_alone": (products_alone, ("numba",)),
    "dense_numpy": (dense_numpy, ()),
    "numpy_mask_loop": (numpy_mask_loop, ()),
    "torch_loop": (torch_loop, ("torch",)),
    "transformers_mixtral": (transformers_mixtral, ("torch", "transformers")),
}


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def least_time(call, *arguments, at_least):
    """The least time of a call, repeated until `at_least` seconds have passed."""
    best, start = np.inf, time.perf_counter()
    while best == np.inf or time.perf_counter() - start < at_least:
        before = time.perf_counter()
        call(*arguments)
        best = min(best, time.perf_counter() - before)
    return best


def limits(_):
    """Not a contestant: step returns (floating point operations a second, bytes copied a second),
    by all cores.
    """
    a = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    out, source, target = (
        np.empty_like(a),
        np.ones(1 << 26, np.float32),
        np.zeros(1 << 26, np.float32),
    )

    def copy():
        parts = zip(np.array_split(target, cores()), np.array_split(source, cores()), strict=True)
        blas_threads = [threading.Thread(target=np.copyto, args=part) for part in parts]
        for t in blas_threads:
            t.start()
        for t in blas_threads:
            t.join()

    copy()  # the first one waits for the memory to be there

    def step(_):
        product = least_time(np.matmul, a, a, out, at_least=0.2)
        return 2 * 2048**3 / product, 2 * source.nbytes / least_time(copy, at_least=0.2)

    return step
