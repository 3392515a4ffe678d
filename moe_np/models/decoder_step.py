"""A decoder in generation: one position per sequence, behind those whose keys and values are kept.

It is `moe_np.models.decoder` for T = 1, without checks and without what only a backward pass needs.
A block has so little to compute here that both would take most of the time:

    x ← x + attention(norm₁(x)),    x ← x + mixture(norm₂(x))        x (B, D), one token per row

What the first pass over the prompt has checked, parameters and config, is not checked again. Keys
and values of the position are written in place, and count only at the end of the pass.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from moe_np.base.checks import InputError
from moe_np.layers import attention_step, few_tokens, mixture_layer, norms, projections, rotary
from moe_np.layers.key_values import KeyValues
from moe_np.models.decoder_config import Config, Tree
from moe_np.routing import top_k
from moe_np.routing.contract import Routing

ArrayB = Annotated[np.ndarray, "B"]
ArrayBD = Annotated[np.ndarray, "B, D"]
ArrayBS = Annotated[np.ndarray, "B, S"]
ArrayBV = Annotated[np.ndarray, "B, V"]


def forward(
    params: Tree,
    ids: ArrayB,
    config: Config,
    kv: Sequence[KeyValues],
    *,
    valid: ArrayBS | None = None,
) -> tuple[ArrayBV, tuple[Routing, ...]]:
    """ids (B,) -> the logits (B, V) of the token after them, the routings by layer.

    kv      one per layer, as `generation.prefill` makes them; filled further IN PLACE
    valid   (B, S), False at padding before a shorter prompt; S counts this position

    Raises InputError for ids outside of the vocabulary, for which NumPy would read another row,
    without room in kv, and for numbers that are not finite.
    """
    w = params["embed"]["w"]
    position = kv[0].length
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(w):
        raise InputError(f"ids: wanted token numbers from 0 to {len(w) - 1}, got {ids}")
    room = min(config.context, kv[0].keys.shape[2])
    if position >= room:
        raise InputError(f"kv: wanted room for {position + 1} positions, got {room}")
    x = w[ids]
    at = np.array([position])
    angles = rotary.angles(at, config.d_head, theta=config.theta, dtype=x.dtype)
    routings = []
    for i, layer in enumerate(params["layers"]):
        try:
            x = x + _attention(layer, x, config, i, kv[i], angles, valid)
            h, _ = norms.rms_forward_numpy(layer["norm2"]["g"], x, config.eps)
            m, routing = mixture_layer.forward_few(
                layer,
                h,
                expert=mixture_layer.KINDS[config.expert],
                router=mixture_layer.router_of(config.router),
                options=config.options,
                ids=ids,
            )
        except InputError as error:
            raise InputError(f"layer {i}: {error}") from None
        x = x + m
        routings.append(routing)
    x, _ = norms.rms_forward_numpy(params["norm"]["g"], x, config.eps)
    head = params["embed" if config.tied else "head"]["w"]
    logits = projections.rows(x, head, transposed=config.tied)
    if not np.isfinite(logits).all():
        raise InputError("params: wanted numbers for which the logits are finite, got larger ones")
    for kept in kv:
        kept.length = position + 1
    return logits, tuple(routings)


def _attention(layer, x, config, i, kv, angles, valid):
    h, _ = norms.rms_forward_numpy(layer["norm1"]["g"], x, config.eps)
    return attention_step.forward(
        layer["attention"],
        h,
        kv,
        angles,
        heads=config.heads,
        window=None if i in config.full_layers else config.window,
        valid=valid,
        eps=config.eps,
    )
