"""The layer that every framework computes, with inputs: top-2 routing, SwiGLU experts.

    z = x W,   i_1, i_2 = the two largest z,   g = softmax(z_{i_1}, z_{i_2})
    y = Σ_j g_j E_{i_j}(x),   E_m(x) = (silu(x W1_m) ⊙ x W3_m) W2_m

A `Step` computes y and all gradients of Σ y ⊙ dy: {"y", "x", "router.w", "experts.w1", ...}.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from moe_np.base.params import leaves
from moe_np.base.types import Array, ArrayND
from moe_np.layers import sparse_layer
from moe_np.layers.experts import SWIGLU
from moe_np.routing import top_k

Step: TypeAlias = Callable[[], dict[str, Array]]
OUT = "y"


class Problem(NamedTuple):
    """The parameters, the inputs, and the gradient of the loss by the outputs; float32."""

    params: dict[str, Any]  # {"router": {"w"}, "experts": {"w1", "w3", "w2"}}
    x: ArrayND
    dy: ArrayND
    k: int


def problem(seed: int, *, tokens: int, d_model: int, hidden: int, experts: int, k: int) -> Problem:
    """A problem by seed."""
    rng = np.random.default_rng(seed)
    router = {"w": top_k.init(rng, d_model, experts)["w"].astype(np.float32)}
    params = {
        "router": router,
        "experts": SWIGLU.init(rng, d_model, experts, hidden, dtype=np.float32),
    }
    x, dy = rng.normal(size=(2, tokens, d_model)).astype(np.float32)
    return Problem(params, x, dy, k)


def step_of(p: Problem) -> Step:
    """The step of moe_np."""

    def step():
        routing, gate = top_k.route(p.params["router"], p.x, k=p.k, renormalise=True)
        y, cache = sparse_layer.forward(p.params["experts"], p.x, routing, SWIGLU)
        dx, dexperts, dweight = sparse_layer.backward(p.dy, cache)
        dx_router, drouter = top_k.route_backward(dweight, None, gate)
        grads = leaves({"router": drouter, "experts": dexperts})
        return {OUT: y, "x": dx + dx_router, **grads}

    return step


def largest_difference(ours: dict[str, Array], compared: dict[str, Array]) -> dict[str, float]:
    """{"outputs", "gradients"}: the largest difference, as a share of the largest value of ours."""
    shares = {
        name: float(np.abs(compared[name] - value).max() / np.abs(value).max())
        for name, value in ours.items()
    }
    return {"outputs": shares.pop(OUT), "gradients": max(shares.values())}
