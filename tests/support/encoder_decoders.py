"""Small encoder-decoders of each layout, and their parameters with values that hide nothing."""

import numpy as np

from moe_np.base import params as nested
from moe_np.models import encoder_decoder
from moe_np.models.encoder_decoder import Config

SMALL = Config(
    vocabulary=17,
    d_model=12,
    encoder_layers=2,
    decoder_layers=2,
    heads=3,
    d_head=5,
    experts=4,
    hidden=7,
    buckets=8,
    max_distance=6,
    context=32,
    start=2,
)
LAYOUTS = {
    "switch": SMALL,
    "switch, untied, capacity": SMALL._replace(
        tied=False, options={"capacity_factor": 0.8}, encoder_layers=3, encoder_dense=(2,)
    ),
    "dense": SMALL._replace(experts=1, expert="gelu", decoder_layers=1),
    "biases": SMALL._replace(biases=True, encoder_dense=(), decoder_dense=(), dense_hidden=9),
    "swiglu": SMALL._replace(
        expert="swiglu", router="top_k", options={"k": 2, "renormalise": True}, tied=False
    ),
}
TOP_K = {"decoder_router": "top_k", "decoder_options": {"k": 2, "renormalise": False}}
# routers of the encoder, also those that are refused in the decoder
ENCODERS = {
    "expert_choice": {"options": {"capacity_factor": 1.5}},
    "strictly_balanced": {"options": {"k": 2}},
    "bias_balanced": {"options": {"k": 2, "renormalise": True}},
}


def with_encoder_router(name):
    return SMALL._replace(router=name, **ENCODERS[name], **TOP_K)


def params(config, seed=0, dtype=np.float64):
    """Random numbers in every leaf: gains, biases and an untrained router are not what they are at
    initialisation.
    """
    rng = np.random.default_rng(seed)
    initial = encoder_decoder.init(rng, config, scale=1.0, dtype=np.float64)

    def moved(p):
        size = 0.3 if p.ndim == 1 else 0.3 * p.std() + 0.1
        return (p + rng.normal(size=p.shape) * size).astype(dtype)

    return nested.map_leaves(moved, initial)


def pairs(config, B=2, S=9, T=7, seed=1):
    """source (B, S) and targets (B, T); one target inside and one at the end are ignored."""
    rng = np.random.default_rng(seed)
    source = rng.integers(config.vocabulary, size=(B, S))
    targets = rng.integers(config.vocabulary, size=(B, T))
    targets[0, -1] = targets[-1, T // 3] = -1
    return source, targets
