"""Shared experts, which every token passes (DeepSeekMoE, arXiv 2401.06066, eq. 9).

A layer with shared experts is the sum of two sparse layers: one with the routing of the router, for
the routed experts, and one with `routing` from here, for the shared experts.

    shared = shared_experts.routing(len(x), n_shared, x.dtype)
    out = (sparse_layer.forward(params, x, routed, experts.SWIGLU)[0]
           + sparse_layer.forward(shared_params, x, shared, experts.SWIGLU)[0])

These are whole experts that all tokens have in common. For parameters that all experts have in
common see `moe_np.layers.experts.expert`.
"""

import numpy as np

from moe_np.base import checks
from moe_np.base.types import DType
from moe_np.routing.contract import Routing


def routing(n_tokens: int, n_experts: int, dtype: DType = np.float64) -> Routing:
    """The routing of every token to each of the n_experts shared experts, with weight 1."""
    n_tokens = checks.integer("n_tokens", n_tokens, minimum=0)
    n_experts = checks.size("n_experts", n_experts)
    dtype = checks.float_type("dtype", dtype)
    token = np.repeat(np.arange(n_tokens), n_experts)
    expert = np.tile(np.arange(n_experts), n_tokens)
    weight = np.ones(len(token), dtype)
    probs = np.ones((n_tokens, n_experts), dtype)
    return Routing(token, expert, weight, None, probs, probs.astype(bool))
