"""Every router with the arguments under which the common tests run it. A new router adds a file and
a `Case`.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from moe_np.routing import (
    base_assignment,
    bias_balanced,
    dense,
    expert_choice,
    gradient_estimators,
    gshard,
    hashing,
    hierarchical,
    kmeans,
    noisy_top_k,
    st_moe,
    strictly_balanced,
    switch,
    top_k,
    top_p,
)


class Case(NamedTuple):
    router: object  # the module
    options: dict  # for route
    start: dict | None = None  # for init
    causal: bool = True  # a token's assignments do not depend on later tokens
    learned: bool = True  # has logits and a gradient
    noisy: bool = False  # takes rng and uses it
    full: bool = True  # every token gets its k experts (no capacity, no choice by the experts)
    fewest: int = 1  # experts needed


# a hash looks at token ids and has no use for what the common tests vary: here the id is the place
# in the batch
HASH = SimpleNamespace(
    init=lambda rng, d_model, n_experts: {},
    route=lambda params, x, rng=None: hashing.route(
        {"table": np.array([2, 0, 3, 3, 1, 0, 1])}, x, ids=np.arange(len(x)) % 7, n_experts=4
    ),
)

CASES = {
    "top_k renormalised": Case(top_k, {"k": 2, "renormalise": True}, fewest=2),
    "top_k": Case(top_k, {"k": 2, "renormalise": False}, fewest=2),
    "top_k k=1": Case(top_k, {"k": 1, "renormalise": False}),
    "dense": Case(dense, {}),
    "noisy_top_k": Case(noisy_top_k, {"k": 2}, {"scale": 1.0}, noisy=True, fewest=2),
    "noisy_top_k epsilon": Case(
        noisy_top_k, {"k": 3, "noise_epsilon": 1e-2}, {"scale": 1.0}, noisy=True, fewest=3
    ),
    "noisy_top_k k=E": Case(noisy_top_k, {"k": 4}, {"scale": 1.0}, noisy=True, fewest=4),
    "strictly_balanced batch": Case(
        strictly_balanced, {"k": 2, "training": True}, causal=False, full=False, fewest=2
    ),
    "strictly_balanced threshold": Case(
        strictly_balanced, {"k": 2, "training": False}, full=False, fewest=2
    ),
    "switch": Case(switch, {}),
    "switch jitter": Case(switch, {"jitter": 0.1}, noisy=True),
    "switch capacity": Case(switch, {"capacity_factor": 1.0}, full=False),
    "gshard": Case(gshard, {}, noisy=True, full=False, fewest=2),
    "gshard capacity": Case(
        gshard, {"capacity_factor": 0.75}, noisy=True, causal=False, full=False, fewest=2
    ),
    "gshard code": Case(
        gshard,
        {"capacity_factor": 0.75, "variant": "code"},
        noisy=True,
        causal=False,
        full=False,
        fewest=2,
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
        hierarchical,
        {"k_primary": 2, "k_secondary": 2, "renormalise": True},
        {"groups": 2},
        fewest=4,
    ),
    "hierarchical not renormalised": Case(
        hierarchical,
        {"k_primary": 1, "k_secondary": 1, "renormalise": False},
        {"groups": 2},
        fewest=2,
    ),
    "expert_choice": Case(expert_choice, {"capacity_factor": 2.0}, causal=False, full=False),
    "expert_choice capped": Case(
        expert_choice, {"capacity_factor": 1.5, "cap": 2}, causal=False, full=False
    ),
    "hashing": Case(HASH, {}, learned=False),
    "kmeans": Case(kmeans, {"k": 1, "weights": "one"}),
    "kmeans softmax": Case(kmeans, {"k": 2, "weights": "softmax", "temperature": 2.0}, fewest=2),
    "kmeans renormalised": Case(
        kmeans, {"k": 2, "weights": "softmax", "renormalise": True, "temperature": 2.0}, fewest=2
    ),
    "base_assignment balanced": Case(base_assignment, {"training": True}, causal=False),
    "base_assignment greedy": Case(base_assignment, {"training": False}),
    "top_p": Case(top_p, {"p": 0.6}),
    "bias_balanced": Case(bias_balanced, {"k": 2, "renormalise": True, "routed_scale": 2.5}, fewest=2),
    "bias_balanced groups": Case(
        bias_balanced, {"k": 2, "renormalise": False, "n_group": 2, "topk_group": 1}, fewest=2
    ),
    "estimators reinforce": Case(gradient_estimators, {"estimator": "reinforce"}, noisy=True),
    # the gradient that straight-through gives is not that of the weight, which is 1
    "estimators straight_through": Case(
        gradient_estimators, {"estimator": "straight_through"}, learned=False, noisy=True
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
