"""New experts in a mixture: each begins behind a closed gate, and the model is what it was.

    config, params = adding.add(config, params, rng=rng)     # nothing changes, to rounding
    config, params = adding.open_gates(config, params)       # tokens may choose the new experts

A gate that is closed needs a bias per expert: no column of a router's matrix keeps an expert away
from every token (`moe_np.routing.biased_top_k` has the proof). So a model with `top_k` gets the
router `biased_top_k` with b = 0 at its old experts, which is equal to it, and goes back to `top_k`
when all gates are open. `bias_balanced` has such a bias already.
"""

import numpy as np

from moe_np.adapt import layer_parts
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, Rng
from moe_np.layers import mixture_layer
from moe_np.models.decoder_config import Config, Tree
from moe_np.routing.biased_top_k import CLOSED

WITH_BIAS = ("biased_top_k", "bias_balanced")


def add(
    config: Config,
    params: Tree,
    *,
    rng: Rng,
    experts: int = 1,
    source: int | None = None,
) -> tuple[Config, Tree]:
    """Add this number of experts to each layer with a router, behind closed gates.

    source   the expert of which the new ones are copies, with its column of the router. None: they
             are drawn anew, as `decoder.init` draws them

    Raises InputError for a model without experts, for a router other than top_k, biased_top_k and
    bias_balanced, and for a source that does not exist.
    """
    checks.generator("rng", rng)
    checks.integer("experts", experts, minimum=1)
    if source is not None:
        checks.integer("source", source, minimum=0, maximum=config.experts - 1)
    layers = layer_parts.check_sparse(config, params)
    config, params = with_bias(config, params)
    scale = np.float64(2 * config.layers) ** -0.5  # of what writes into the residual stream

    def extended(number, layer):
        if source is None:
            new = _drawn(rng, config, layer, experts, scale)
        else:
            new = layer_parts.take(layer, [source] * experts)
        joined = layer_parts.copied(layer)
        for part, axis in (("experts", 0), ("router", -1)):
            for name, p in new[part].items():
                joined[part][name] = np.concatenate([layer[part][name], p], axis=axis)
        joined["router"]["bias"][-experts:] = CLOSED
        return joined

    params = layer_parts.with_layers(params, extended, layers)
    return config._replace(experts=config.experts + experts), params


def _drawn(rng, config, layer, experts, scale):
    new = mixture_layer.init(
        rng,
        config.d_model,
        experts,
        config.hidden,
        kind=config.expert,
        router=config.router,
        dtype=layer["norm2"]["g"].dtype,
    )
    w2 = new["experts"]["w2"]
    new["experts"]["w2"] = (w2 * scale).astype(w2.dtype)
    return new


def with_bias(config: Config, params: Tree) -> tuple[Config, Tree]:
    """The model with a router that has a bias per expert: `top_k` becomes `biased_top_k`, b = 0.

    Raises InputError for another router without a bias.
    """
    layers = layer_parts.check_sparse(config, params)
    if config.router in WITH_BIAS:
        return config, layer_parts.copied(params)
    if config.router != "top_k":
        wanted = "top_k, biased_top_k or bias_balanced, where a gate can be closed"
        raise InputError(f"config.router: wanted {wanted}; got {config.router}")

    def biased(number, layer):
        layer = layer_parts.copied(layer)
        w = layer["router"]["w"]
        layer["router"]["bias"] = np.zeros(w.shape[1], w.dtype)
        return layer

    params = layer_parts.with_layers(params, biased, layers)
    return config._replace(router="biased_top_k"), params


def is_closed(layer: Tree) -> Array:
    """(E,) bool: the experts of a layer whose gate is closed."""
    bias = layer["router"].get("bias")
    return np.zeros(len(layer["experts"]["w2"]), bool) if bias is None else bias <= CLOSED / 2


def open_gates(config: Config, params: Tree, *, bias: float = 0.0) -> tuple[Config, Tree]:
    """Open all gates that are closed, at this bias: below 0 few tokens choose the new experts.

    Where no bias is left, the router is `top_k` again.
    """
    layers = layer_parts.check_sparse(config, params)
    bias = checks.number("bias", bias, greater_than=CLOSED / 2)

    def opened(number, layer):
        closed = is_closed(layer)
        layer = layer_parts.copied(layer)
        if closed.any():
            layer["router"]["bias"][closed] = bias
        return layer

    params = layer_parts.with_layers(params, opened, layers)
    return without_bias(config, params) if config.router == "biased_top_k" else (config, params)


def without_bias(config: Config, params: Tree) -> tuple[Config, Tree]:
    """`biased_top_k` whose biases are all 0 as `top_k`, which it equals; else as it is."""
    layers = layer_parts.check_sparse(config, params)
    biases = [params["layers"][number]["router"].get("bias") for number in layers]
    if config.router != "biased_top_k" or any(b is None or b.any() for b in biases):
        return config, params

    def unbiased(number, layer):
        layer = layer_parts.copied(layer)
        del layer["router"]["bias"]
        return layer

    return config._replace(router="top_k"), layer_parts.with_layers(params, unbiased, layers)
