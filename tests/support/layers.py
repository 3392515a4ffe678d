"""Problems for the layer: experts of every kind, tokens, and assignments drawn at random."""

import numpy as np

from moe_np.routing.contract import Routing
from tests.support.experts import cases

# of all experts whose rows are vectors
KINDS = {name: (case.expert, case.sizes) for name, case in cases().items() if not case.patches}
D = 5


def random_routing(rng, n_tokens, n_experts, k, drop=0.0, dtype=np.float64):
    """k different experts per token, in any order of the rows, some of them dropped."""
    choice = np.argsort(rng.random((n_tokens, n_experts)), axis=1)[:, :k]
    token, expert = np.repeat(np.arange(n_tokens), k), choice.ravel()
    demand = np.zeros((n_tokens, n_experts), bool)
    demand[token, expert] = True
    kept = rng.permutation(np.flatnonzero(rng.random(len(token)) >= drop))
    weight = rng.normal(size=len(kept)).astype(dtype)
    return Routing(token[kept], expert[kept], weight, None, demand.astype(dtype), demand)


def setup(kind, seed=0, n_tokens=11, n_experts=4, k=2, drop=0.2, dtype=np.float64, share=()):
    """(expert, its parameters, x (N, D), routing), away from zero."""
    rng = np.random.default_rng(seed)
    expert, sizes = KINDS[kind]
    params = expert.init(rng, D, n_experts, *sizes, share=share)
    params = {
        name: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) for name, p in params.items()
    }
    x = rng.normal(size=(n_tokens, D)).astype(dtype)
    return expert, params, x, random_routing(rng, n_tokens, n_experts, k, drop, dtype)
