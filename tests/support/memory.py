"""A small associative memory, for the tests of the model and of the router zoo."""

import numpy as np

from moe_np.models import associative_memory


def small_memory(setup, seed=0, n_experts=16, n=40):
    """Parameters away from zero in float64, and a minibatch: params, x, y, ids."""
    rng = np.random.default_rng(seed)
    keys, labels = associative_memory.associations(rng, n, 6, 5, dtype=np.float64)
    params = associative_memory.init(rng, setup, keys, 5, n_experts=n_experts, hidden=3)
    for part in params.values():
        for name, p in part.items():
            if p.dtype.kind == "f":
                part[name] = p + 0.3 * rng.normal(size=p.shape)
    return params, keys, labels, np.arange(n)
