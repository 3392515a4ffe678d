"""Every router with the arguments under which the common tests run it. A new router adds a file and a `Case`."""

from typing import NamedTuple

import numpy as np

from moe_np.routing import dense, gshard, hierarchical, noisy_top_k, st_moe, strictly_balanced, switch, top_k


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
    "dense": Case(dense, {}),
    "noisy_top_k": Case(noisy_top_k, {"k": 2}, {"scale": 1.0}, noisy=True, fewest=2),
    "noisy_top_k epsilon": Case(noisy_top_k, {"k": 3, "noise_epsilon": 1e-2}, {"scale": 1.0}, noisy=True, fewest=3),
    "noisy_top_k k=E": Case(noisy_top_k, {"k": 4}, {"scale": 1.0}, noisy=True, fewest=4),
    "strictly_balanced batch": Case(strictly_balanced, {"k": 2, "mask": "batch"}, causal=False, full=False, fewest=2),
    "strictly_balanced threshold": Case(strictly_balanced, {"k": 2, "mask": "threshold"}, full=False, fewest=2),
    "switch": Case(switch, {}),
    "switch jitter": Case(switch, {"jitter": 0.1}, noisy=True),
    "switch capacity": Case(switch, {"capacity_factor": 1.0}, full=False),
    "gshard": Case(gshard, {}, noisy=True, full=False, fewest=2),
    "gshard capacity": Case(gshard, {"capacity_factor": 0.75}, noisy=True, causal=False, full=False, fewest=2),
    "gshard code": Case(
        gshard, {"capacity_factor": 0.75, "variant": "code"}, noisy=True, causal=False, full=False, fewest=2
    ),
    "st_moe": Case(st_moe, {"threshold": 0.4}, full=False, fewest=2),
    "st_moe random": Case(
        st_moe,
        {"of": "pair", "second": "random", "capacity_factor": 0.75},
        noisy=True,
        causal=False,
        full=False,
        fewest=2,
    ),
    "hierarchical": Case(
        hierarchical, {"k_primary": 2, "k_secondary": 2, "renormalise": True}, {"groups": 2}, fewest=4
    ),
    "hierarchical not renormalised": Case(
        hierarchical, {"k_primary": 1, "k_secondary": 1, "renormalise": False}, {"groups": 2}, fewest=2
    ),
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
