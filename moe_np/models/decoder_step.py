"""A decoder in generation: one position per sequence, behind those whose keys and values are kept.

It is `moe_np.models.decoder` for T = 1, without checks and without what only a backward pass needs.
A block has so little to compute here that both would take most of the time:

    x ← x + attention(norm₁(x)),    x ← x + mixture(norm₂(x))        x (B, D), one token per row

What the first pass over the prompt has checked, parameters and config, is not checked again. Keys
and values of the position are written in place, and count only at the end of the pass. With Numba,
a block of Mixtral's or of a dense model is one call of `moe_np.kernels.decoder_step`.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from moe_np import kernels
from moe_np.base.checks import InputError
from moe_np.layers import attention_step, few_tokens, mixture_layer, norms, projections, rotary
from moe_np.layers.key_values import KeyValues
from moe_np.models.decoder_config import Config, Tree, window_of
from moe_np.routing.contract import Routing

ArrayB = Annotated[np.ndarray, "B"]
ArrayBD = Annotated[np.ndarray, "B, D"]
ArrayBS = Annotated[np.ndarray, "B, S"]
ArrayBV = Annotated[np.ndarray, "B, V"]


def weights(params: Tree, config: Config) -> list[Any]:
    """The parameters of each layer as its compiled loop takes them; None for a layer in NumPy."""
    if not kernels.compiled(params["embed"]["w"].dtype):
        return [None] * config.layers
    return [kernels.decoder_step.weights_of(layer, config) for layer in params["layers"]]


def forward(
    params: Tree,
    ids: ArrayB,
    config: Config,
    kv: Sequence[KeyValues],
    *,
    valid: ArrayBS | None = None,
    blocks: Sequence[Any] | None = None,
) -> tuple[ArrayBV, tuple[Routing, ...]]:
    """ids (B,) -> the logits (B, V) of the token after them, the routings by layer.

    kv      one per layer, as `generation.prefill` makes them; filled further IN PLACE
    valid   (B, S), False at padding before a shorter prompt; S counts this position
    blocks  `weights(params, config)`, for many steps with the same parameters

    Raises InputError for ids outside of the vocabulary, for which NumPy would read another row,
    without room in kv, and for numbers that are not finite.
    """
    w = params["embed"]["w"]
    position = kv[0].length
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(w):
        raise InputError(f"ids: wanted token numbers from 0 to {len(w) - 1}, got {ids}")
    room = min(config.context, kv[0].room)
    if position >= room:
        raise InputError(f"kv: wanted room for {position + 1} positions, got {room}")
    x = w[ids]
    angles = rotary.at(np.array([position]), config.d_head, config.theta, x.dtype)
    blocks = weights(params, config) if blocks is None else blocks
    routings = []
    for i, layer in enumerate(params["layers"]):
        block = blocks[i]
        try:
            if block is not None and few_tokens.is_few(len(x) * block.k, block.experts[3]):
                x, routing = _block_compiled(block, x, config, i, kv[i], angles, valid)
            else:
                x, routing = block_numpy(layer, x, config, i, kv[i], angles, valid, ids)
        except InputError as error:
            raise InputError(f"layer {i}: {error}") from None
        routings.append(routing)
    x, _ = norms.rms_forward_numpy(params["norm"]["g"], x, config.eps)
    head = params["embed" if config.tied else "head"]["w"]
    logits = projections.rows(x, head, transposed=config.tied)
    if not np.isfinite(logits).all():
        raise InputError("params: wanted numbers for which the logits are finite, got larger ones")
    for kept in kv:
        kept.length = position + 1
    return logits, tuple(routings)


def _block_compiled(block, x, config, i, kv, angles, valid):
    window = window_of(config, i)
    out, gate = kernels.decoder_step.block(x, block, kv, angles, window, valid, config.eps)
    if out is None:
        raise InputError("x: wanted numbers for which the output is finite, got larger ones")
    token = _tokens(len(x), block.k)
    logits = gate.logits if block.router.shape[1] else None
    chosen = (gate.choice.ravel(), gate.weight.ravel())
    return out, Routing(token, *chosen, logits, gate.probs, gate.demand)


@functools.lru_cache
def _tokens(n_tokens, k):
    """The tokens of all assignments, for every block and step; nobody may write to it."""
    token = np.repeat(np.arange(n_tokens), k)
    token.setflags(write=False)
    return token


def block_numpy(
    layer: Tree,
    x: ArrayBD,
    config: Config,
    i: int,
    kv: KeyValues,
    angles: rotary.Rotary,
    valid: ArrayBS | None,
    ids: ArrayB,
) -> tuple[ArrayBD, Routing]:
    """A block in pieces, for any config: x (B, D) -> x (B, D) after layer i, its routing."""
    h, _ = norms.rms_forward_numpy(layer["norm1"]["g"], x, config.eps)
    x = x + attention_step.forward(
        layer["attention"],
        h,
        kv,
        angles,
        heads=config.heads,
        window=window_of(config, i),
        valid=valid,
        eps=config.eps,
        clip_qkv=config.clip_qkv,
    )
    h, _ = norms.rms_forward_numpy(layer["norm2"]["g"], x, config.eps)
    m, routing = mixture_layer.forward_few(
        layer,
        h,
        expert=mixture_layer.KINDS[config.expert],
        router=mixture_layer.router_of(config.router),
        options=config.options,
        ids=ids,
    )
    return x + m, routing
