"""Splitting: every expert becomes m finer ones, and the model gives equal outputs.

A hidden layer is a sum over its units, so it can be cut into m slices:

    E_i(h) = Σ_j F_ij(h),   F_ij the units of slice j         fine-grained experts (DeepSeekMoE,
    Σ_i w_i E_i(h) = Σ_ij (w_i/m) (m F_ij(h))                 arXiv 2401.06066, section 3.1)

The slices of an expert share its column of the router. Their logits are equal, so the m·k largest
are the slices of the k experts that were chosen before, each with the weight w_i/m, renormalised or
not; w2 is multiplied by m for that. Equal logits part in training, and then a token may choose
slices of different experts: that is the point of finer ones.
"""

import numpy as np

from moe_np.adapt import layer_parts
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, Params
from moe_np.models.decoder_config import Config, Tree

FITTING = ("top_k", "biased_top_k")


def split(config: Config, params: Tree, *, parts: int) -> tuple[Config, Tree]:
    """Every expert of every layer with a router into `parts` slices; k becomes parts · k.

    Raises InputError for a router other than top_k and biased_top_k, and for a number of hidden
    units that `parts` does not divide.
    """
    layers = layer_parts.check_sparse(config, params)
    checks.choice("config.router", config.router, FITTING)
    parts = checks.integer("parts", parts, minimum=2)
    if config.hidden % parts:
        raise InputError(
            f"parts: wanted a divisor of the {config.hidden} hidden units, got {parts}"
        )

    def finer(number, layer):
        layer = layer_parts.copied(layer)
        router = layer["router"]
        layer["router"] = {name: np.repeat(p, parts, axis=-1) for name, p in router.items()}
        layer["experts"] = slices(layer["experts"], parts)
        return layer

    new = config._replace(
        experts=parts * config.experts,
        hidden=config.hidden // parts,
        # what has the width of an expert by default keeps it
        dense_hidden=config.dense_hidden or (config.hidden if config.dense_layers else None),
        shared_hidden=config.shared_hidden or (config.hidden if config.shared else None),
        options={**config.options, "k": parts * layer_parts.choices(config)},
    )
    return new, layer_parts.with_layers(params, finer, layers)


def slices(experts: Params, parts: int) -> Params:
    """{name: (E, ...)} -> {name: (E · parts, ...)}: slice j of expert i has the number i·parts + j.

    The output of a slice is `parts` times its share, and the bias b2 is whole in each.
    """
    return {name: _SLICED[name](p, parts) for name, p in experts.items()}


def _columns(p: Array, parts: int) -> Array:
    """(E, D, H) or (E, H) -> (E · parts, D, H / parts) or (E · parts, H / parts)."""
    pieces = np.stack(np.split(p, parts, axis=-1), axis=1)
    return pieces.reshape(-1, *pieces.shape[2:])


def _rows(p: Array, parts: int) -> Array:
    """(E, H, D) -> (E · parts, H / parts, D), times `parts`."""
    return (p * p.dtype.type(parts)).reshape(-1, p.shape[1] // parts, p.shape[2])


_SLICED = {
    "w1": _columns,
    "w3": _columns,
    "b1": _columns,
    "w2": _rows,
    "b2": lambda p, parts: np.repeat(p, parts, axis=0),
}
