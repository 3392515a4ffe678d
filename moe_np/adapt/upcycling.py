"""Sparse upcycling: a dense decoder becomes a mixture of experts (Komatsuzaki et al. 2022, arXiv
2212.05055): every expert begins as a copy of the feed-forward network, the router is new, all else
is copied.

    y = Σ_i w_i E(h) = E(h) Σ_i w_i        at the first step, when the E experts are equal

So the upcycled model *equals* the dense one where the weights of a token add up to 1: with top-k
gating that is renormalised, to rounding. With the weight of Switch, the probability p_i, each layer
is p_i times too small, and so it is for top-k that is not renormalised, and for a token that a
capacity drops (section 3.1 of the paper normalises the weights for this reason). `exact` says which
it is.

    option        what it does
    noise         copies get normal noise, `noise` times the standard deviation of each array
    redrawn       Drop-Upcycling (Nakamura et al. 2025, arXiv 2502.19261): in each expert this share
                  of the hidden units is drawn anew, normal with the mean and the standard
                  deviation of the numbers that are replaced

Both make the experts differ from the beginning, and the model unequal to the dense one. Without
them equal experts part only because they get different tokens and weights; with k = E and equal
weights they never part. The gradients of the copies add up to the gradient of the dense network.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.adapt import layer_parts
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.optim import AdamState
from moe_np.base.params import map_leaves
from moe_np.base.types import Options, Params, Rng
from moe_np.layers import mixture_layer
from moe_np.models import decoder_config
from moe_np.models.decoder_config import MIXTRAL_GATE, Config, Tree

SUM_TO_ONE = ("top_k", "biased_top_k", "noisy_top_k", "bias_balanced", "top_p", "dense")


def upcycle(
    config: Config,
    params: Tree,
    *,
    experts: int,
    rng: Rng,
    router: str = "top_k",
    options: Options = MIXTRAL_GATE,
    layers: Sequence[int] | None = None,
    noise: float = 0.0,
    redrawn: float = 0.0,
) -> tuple[Config, Tree]:
    """A dense decoder -> the config and parameters of one with this number of experts.

    router     a causal router of moe_np.routing, with the options of its `route`
    layers     that get experts; None: all. The others stay dense

    Raises InputError for a model that has experts already, and for a router that is not causal.
    """
    checks.generator("rng", rng)
    checks.number("noise", noise, minimum=0)
    checks.number("redrawn", redrawn, minimum=0, maximum=1)
    new = upcycled_config(config, experts=experts, router=router, options=options, layers=layers)
    layer_parts.check(config, params)

    def sparse(number, layer):
        layer = layer_parts.copied(layer)
        dtype = layer["norm2"]["g"].dtype
        sizes = {"n_experts": experts, "hidden": 1, "kind": config.expert}
        facts = {"router": router, "vocabulary": config.vocabulary, "dtype": dtype}
        layer["router"] = mixture_layer.init(rng, config.d_model, **sizes, **facts)["router"]
        layer["experts"] = copies(layer["experts"], experts, rng, noise=noise, redrawn=redrawn)
        return layer

    return new, layer_parts.with_layers(params, sparse, layer_parts.sparse_layers(new))


def upcycled_config(
    config: Config,
    *,
    experts: int,
    router: str = "top_k",
    options: Options = MIXTRAL_GATE,
    layers: Sequence[int] | None = None,
) -> Config:
    """The config of the upcycled model; the arguments and the errors are those of `upcycle`."""
    decoder_config.check(config)
    if config.experts != 1:
        raise InputError(f"config: wanted a dense model, got one of {config.experts} experts")
    checks.integer("experts", experts, minimum=2)
    chosen = range(config.layers) if layers is None else layers
    for number in chosen:
        checks.integer("layers", number, minimum=0, maximum=config.layers - 1)
    if not len(chosen):
        raise InputError("layers: wanted at least one layer that gets experts, got none")
    dense = [number for number in range(config.layers) if number not in chosen]
    new = config._replace(
        experts=experts,
        hidden=config.dense_hidden or config.hidden,
        dense_hidden=None,
        dense_layers=dense,
        router=router,
        options=dict(options),
        init_options=None,
        shared=0,
    )
    checks.integer("k", layer_parts.choices(new), maximum=experts)
    decoder_config.check(new)
    return new


def copies(
    experts: Params, n: int, rng: Rng, *, noise: float = 0.0, redrawn: float = 0.0
) -> Params:
    """One network {name: (1, ...)} -> n experts {name: (n, ...)}: see `noise`, `redrawn` above."""
    network = {name: p[0] for name, p in experts.items()}
    changed = [_redrawn(network, redrawn, rng) for _ in range(n)] if redrawn else [network] * n
    stacked = layer_parts.stacked(changed)
    if noise:
        for name, p in stacked.items():
            spread = noise * network[name].std()
            stacked[name] = (p + spread * rng.normal(size=p.shape)).astype(p.dtype)
    return stacked


def _redrawn(network: Params, share: float, rng: Rng) -> Params:
    """Some hidden units of an expert drawn anew: columns of w1, w3 and b1, and rows of w2."""
    H = network["w2"].shape[0]
    units = rng.choice(H, size=round(share * H), replace=False)
    network = {name: p.copy() for name, p in network.items()}
    for name, p in network.items():
        if name == "b2" or not len(units):
            continue
        place = (units, slice(None)) if name == "w2" else (Ellipsis, units)
        dropped = p[place]
        p[place] = rng.normal(dropped.mean(), dropped.std(), dropped.shape)
    return network


def upcycled_optimiser(optimiser: AdamState, config: Config, params: Tree) -> AdamState:
    """The optimiser's state carried over: running means of the dense network for every copy, zeros
    for the router, the same number of updates.

    config, params   of the upcycled model, from `upcycle`

    A router whose means begin at 0 while t is large has no correction of this bias left: its first
    updates are up to (1 − β₁)/√(1 − β₂) = 3.2 learning rates large.
    """
    layers = layer_parts.sparse_layers(config)

    def carried(means):
        def sparse(number, layer):
            like = params["layers"][number]
            layer = layer_parts.copied(layer)
            layer["router"] = map_leaves(np.zeros_like, like["router"])
            layer["experts"] = {
                name: np.repeat(mean, config.experts, axis=0)
                for name, mean in layer["experts"].items()
            }
            return layer

        return layer_parts.with_layers(means, sparse, layers)

    return AdamState(optimiser.t, carried(optimiser.m), carried(optimiser.v))


def exact(config: Config) -> bool:
    """Whether upcycling to this config, without noise and redrawn units, gives an equal model."""
    sums_to_one = config.router == "dense" or layer_parts.renormalised(config)
    return config.router in SUM_TO_ONE and sums_to_one and not config.options.get("routed_scale")
