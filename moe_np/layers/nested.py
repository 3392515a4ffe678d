"""A mixture of experts as the expert of a mixture: a second router inside each expert.

    y = Σ_i g_i(x) expert_i(x),    expert_i(x) = Σ_j g_{j|i}(x) expert_{ij}(x)

    outer = nested.expert(top_k, {"k": 2, "renormalise": True}, experts.GELU)
    params = outer.init(rng, d_model, n_experts, n_inner, hidden)
    out, cache = sparse_layer.forward(params, x, routing, outer)

This is a hierarchical mixture of experts of two levels, with sparse gating networks.
`moe_np.routing.hierarchical` routes in two levels too, but to one list of experts.
"""

from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Options, Params
from moe_np.layers import sparse_layer
from moe_np.layers.experts.expert import Expert, Offsets, sum_shared
from moe_np.routing.contract import Router, Routing

PREFIX = "router."


class InnerPass(NamedTuple):
    """The forward pass of one inner mixture."""

    routing: Routing
    router: Any  # the cache of the router
    layer: sparse_layer.Cache


class Cache(NamedTuple):
    """What the backward pass needs: one inner pass per outer expert."""

    params: Params
    offsets: Offsets
    inner: list[InnerPass]


def expert(router: Router, options: Options, inner: Expert) -> Expert:
    """An `Expert` that is a whole mixture: a router with its options, and the experts inside it.

    router     from `moe_np.routing`; options are those of its `route`
    inner      from `moe_np.layers.experts`

    params are those of the inner router, named "router.…", and those of the inner experts, all with
    the outer expert as axis 0, e.g. "w1" (E, E_inner, D, H). The inner routings are in the cache; a
    load-balancing loss on them is up to the caller.
    """

    def init(rng, d_model, n_experts, n_inner, *sizes, scale=1.0, dtype=np.float64):
        """sizes: those of the `init` of the inner experts."""
        mixtures = []
        for _ in range(checks.integer("n_experts", n_experts)):
            gate = router.init(rng, d_model, n_inner, dtype=dtype)
            nets = inner.init(rng, d_model, n_inner, *sizes, scale=scale, dtype=dtype)
            mixtures.append(_join(gate, nets))
        return _stack(mixtures, mixtures[0])

    def forward(params, rows, offsets):
        outputs, passes = [], []
        for m in range(len(offsets) - 1):
            x = rows[offsets[m] : offsets[m + 1]]
            gate, nets = _split({name: p[m % len(p)] for name, p in params.items()})
            routing, gate_cache = router.route(gate, x, **options)
            y, cache = sparse_layer.forward(nets, x, routing, inner)
            outputs.append(y)
            passes.append(InnerPass(routing, gate_cache, cache))
        return np.concatenate(outputs), Cache(params, offsets, passes)

    def backward(dy, cache):
        drows, grads = [], []
        for m, (_, gate_cache, layer_cache) in enumerate(cache.inner):
            block = slice(cache.offsets[m], cache.offsets[m + 1])
            dx, dnets, dweight = sparse_layer.backward(dy[block], layer_cache)
            dx_gate, dgate = router.route_backward(dweight, None, gate_cache)
            drows.append(dx + dx_gate)
            grads.append(_join(dgate, dnets))
        return np.concatenate(drows), sum_shared(_stack(grads, cache.params), cache.params)

    return Expert(init, forward, backward, {"x": inner.axes["x"]})


def _join(gate, nets):
    """The arrays of router and experts in one dict."""
    return {**{PREFIX + name: p for name, p in gate.items()}, **nets}


def _split(params):
    """The reverse of `_join`."""
    gate = {name.removeprefix(PREFIX): p for name, p in params.items() if name.startswith(PREFIX)}
    return gate, {name: p for name, p in params.items() if not name.startswith(PREFIX)}


def _stack(dicts, names):
    """One dict of arrays with the outer expert as axis 0."""
    return {name: np.stack([arrays[name] for arrays in dicts]) for name in names}
