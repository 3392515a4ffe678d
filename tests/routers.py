"""Every router with the arguments under which the common tests run it. A new router adds a file and a `Case`."""

from typing import NamedTuple

import numpy as np

from moe_np.routing import top_k


class Case(NamedTuple):
    router: object  # the module
    options: dict  # for route
    start: dict | None = None  # for init
    causal: bool = True  # a token's assignments do not depend on later tokens
    learned: bool = True  # has logits and a gradient
    noisy: bool = False  # takes rng and uses it
    full: bool = True  # every token gets its k experts (no capacity, no choice by the experts)
    fewest: int = 1  # experts needed


CASES = {
    "top_k renormalised": Case(top_k, {"k": 2, "renormalise": True}, fewest=2),
    "top_k": Case(top_k, {"k": 2, "renormalise": False}, fewest=2),
    "top_k k=1": Case(top_k, {"k": 1, "renormalise": False}),
}


def setup(case, seed=0, n_tokens=12, d_model=5, n_experts=4, dtype=np.float64):
    """Parameters away from zero and tokens without ties: (params, x)."""
    rng = np.random.default_rng(seed)
    params = case.router.init(rng, d_model, n_experts, **(case.start or {}))
    params = {k: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) for k, p in params.items()}
    x = rng.normal(size=(n_tokens, d_model)).astype(dtype)
    return params, x


def route(case, params, x, seed=None):
    """`seed` freezes the noise of a noisy router; None is evaluation."""
    rng = None if seed is None or not case.noisy else np.random.default_rng(seed)
    return case.router.route(params, x, **case.options, rng=rng)
