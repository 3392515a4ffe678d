"""Small decoders of each layout, and their parameters with values that hide nothing."""

import numpy as np

from moe_np.base import params as nested
from moe_np.models import decoder
from moe_np.models.decoder import Config

NOT_RENORMALISED = {"k": 2, "renormalise": False}
SMALL = Config(
    vocabulary=19,
    d_model=12,
    layers=2,
    heads=6,
    kv_heads=3,
    d_head=4,
    experts=5,
    hidden=7,
    context=32,
)

LAYOUTS = {
    "mixtral": SMALL._replace(window=4),
    "glam": SMALL._replace(layers=4, dense_layers=(0, 2), dense_hidden=9, expert="gelu"),
    "deepseek": SMALL._replace(
        layers=3,
        dense_layers=(0,),
        dense_hidden=9,
        shared=2,
        options={"k": 3, "renormalise": False},
        eps=1e-6,
    ),
    "olmoe": SMALL._replace(qk_norm="whole", options=NOT_RENORMALISED),
    "clipped": SMALL._replace(qk_norm="whole", options=NOT_RENORMALISED, clip_qkv=0.8),
    "qwen2": SMALL._replace(
        biases=True,
        shared=1,
        shared_hidden=6,
        shared_gate=True,
        options=NOT_RENORMALISED,
        tied=True,
        eps=1e-6,
    ),
    "qwen3": SMALL._replace(qk_norm="head", d_head=6, tied=True, theta=1e6, eps=1e-6),
    "dense": SMALL._replace(experts=1, hidden=14, tied=True),
    "switch": SMALL._replace(
        router="switch", options={"capacity_factor": 0.8}, expert="relu", full_layers=(1,), window=3
    ),
}
# routers by name, each with options of its own
ROUTERS = {
    "bias_balanced": {"options": {"k": 2, "renormalise": True}},
    "capacity_top_k": {"options": {"k": 2, "renormalise": True, "capacity_factor": 0.8}},
    "hashing": {"options": {}},
    "hierarchical": {
        "options": {"k_primary": 2, "k_secondary": 2, "renormalise": True},
        "init_options": {"groups": 2},
        "experts": 6,
    },
    "noisy_top_k": {"options": {"k": 2}, "init_options": {"scale": 0.5}},
    "top_p": {"options": {"p": 0.6}},
    "dense": {"options": {}},
    "kmeans": {"options": {"k": 2, "weights": "softmax"}},
}


def with_router(name):
    return SMALL._replace(router=name, **ROUTERS[name])


def without_capacity(config):
    """The config as generation takes it."""
    options = {name: value for name, value in config.options.items() if name != "capacity_factor"}
    return config._replace(options=options)


def params(config, seed=0, dtype=np.float64):
    """Random numbers in every leaf: gains, biases and an untrained router are not what they are at
    initialisation.
    """
    rng = np.random.default_rng(seed)
    initial = decoder.init(rng, config, dtype=np.float64)

    def moved(p):
        size = 0.3 if p.ndim == 1 else 0.3 * p.std() + 0.1
        moved = p + rng.normal(size=p.shape) * size if p.dtype.kind == "f" else p
        return moved.astype(dtype) if p.dtype.kind == "f" else p

    return nested.map_leaves(moved, initial)


def text(config, B=2, T=9, seed=1):
    """ids and targets (B, T); two targets are ignored."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(config.vocabulary, size=(B, T))
    targets = rng.integers(config.vocabulary, size=(B, T))
    targets[0, -1] = targets[-1, T // 3] = -1
    return ids, targets


# every layout and every router, as generation takes them
GENERATING = {**LAYOUTS, **{name: with_router(name) for name in ROUTERS}}
GENERATING = {name: without_capacity(config) for name, config in GENERATING.items()}


def with_leaves(params, leaves):
    """`params` with other arrays, {path: array}."""
    names = iter(nested.leaves(params))
    return nested.map_leaves(lambda _: leaves[next(names)], params)
