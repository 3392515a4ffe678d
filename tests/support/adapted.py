"""Small decoders for the tests of moe_np.adapt, in float64, whose parameters are nowhere zero."""

import numpy as np

from moe_np.base.params import map_leaves
from moe_np.models import decoder

DENSE = decoder.Config(
    vocabulary=30, d_model=12, layers=2, heads=2, kv_heads=1, d_head=6, experts=1, hidden=8
)
SPARSE = DENSE._replace(experts=4)
SHARES = {"k": 2, "renormalise": False}


def params_of(config, seed=0):
    rng = np.random.default_rng(seed)
    params = decoder.init(rng, config, dtype=np.float64)
    return map_leaves(lambda p: p + 0.1 * rng.normal(size=p.shape), params)


def ids_of(seed=1, batch=3, length=7, vocabulary=30):
    return np.random.default_rng(seed).integers(0, vocabulary, (batch, length))


def logits_of(model, ids=None):
    """Of a pair (config, params)."""
    return decoder.forward(model[1], ids_of() if ids is None else ids, model[0])[0]


def difference(a, b, ids=None):
    return np.abs(logits_of(a, ids) - logits_of(b, ids)).max()
