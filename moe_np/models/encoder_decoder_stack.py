"""The two stacks of an encoder-decoder in the layout of T5, from one block.

    x⁰ = D(embed[ids])                                 the same embedding in both stacks
    a  = xˡ + D(attention(norm₁(xˡ); bias))            encoder: both directions; decoder: causal
    c  = a + D(attention(norm_cross(a), memory))       decoder only; the memory is the encoder's x
    xˡ⁺¹ = c + D(mixture(norm₂(c)))                    router and experts, or one network
    x  = D(norm(xᴸ))

    here     shape          meaning
    D(·)                    dropout, in training (attention has none on its weights)
    bias     (Hq, T, S)     of relative positions, one array for all layers of a stack: its gradient
                            is the sum of what they give. Cross attention has none
    memory   (B, S, D)      what the decoder attends to; its gradient is the sum over the layers

Scores are q·k without the factor 1/√d. Padding is hidden among the keys, of self attention and of
cross attention, and gets no routed expert.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayBT, ArrayBTD, ArrayE, Params, Rng
from moe_np.layers import (
    attention,
    dropout,
    embedding,
    experts,
    mixture_layer,
    norms,
    position_bias,
)
from moe_np.layers.attention import Bias
from moe_np.layers.key_values import KeyValues
from moe_np.models.encoder_decoder_config import Config, Tree, router_of
from moe_np.routing.contract import BalanceLoss

ArrayBS = Annotated[np.ndarray, "B, S"]


class Memory(NamedTuple):
    """What the decoder knows of the source."""

    x: ArrayBTD  # the encoder's output (B, S, D)
    valid: ArrayBS | None  # False at padding


class Batch(NamedTuple):
    """What all blocks of one pass of a stack have in common."""

    ids: ArrayBT
    bias: Bias
    valid: ArrayBT | None  # False at padding
    valid_keys: ArrayBS | None  # the same, with the positions before these in generation
    memory: Memory | None  # None: this is the encoder
    rng: Rng | None  # of dropout, and of routers that draw; None in evaluation
    training: bool


# --- attention and its residual -------------------------------------------------------------------


class AttentionCache(NamedTuple):
    """What the backward pass of x + D(attention(norm(x))) needs."""

    norm: norms.RmsCache
    attention: attention.Cache | None  # None in generation, which has no backward pass
    mask: Array | None  # of dropout
    p: float


def attention_forward(
    norm: Params, params: Tree, x: ArrayBTD, config: Config, rng: Rng | None, **options: Any
) -> tuple[ArrayBTD, AttentionCache]:
    """x + D(attention(norm(x))): x (B, T, D) -> (x (B, T, D), cache).

    options   of `attention.forward`: causal, bias, memory, valid, kv
    """
    h, normed = norms.rms_forward(norm, x, eps=config.eps)
    heads = {"heads": config.heads, "kv_heads": config.heads}
    a, attended = attention.forward(params, h, **heads, scale=1.0, **options)
    a, mask = dropout.forward(a, config.dropout, rng)
    return x + a, AttentionCache(normed, attended, mask, config.dropout)


def attention_backward(
    dx: ArrayBTD, cache: AttentionCache
) -> tuple[ArrayBTD, Params, attention.Gradients]:
    """dx goes both into the sublayer and past it: -> dx, the gradients of the norm and the rest."""
    assert cache.attention is not None, "generation, with kv, has no backward pass"
    da = dropout.backward(dx, cache.mask, cache.p)
    inner = attention.backward_all(da, cache.attention)
    dh, dnorm = norms.rms_backward(inner.x, cache.norm)
    return dx + dh, dnorm, inner


# --- the mixture and its residual -----------------------------------------------------------------


class MixtureCache(NamedTuple):
    """What the backward pass of x + D(mixture(norm(x))) needs."""

    norm: norms.RmsCache
    mixture: mixture_layer.Cache
    names: tuple[str, ...]  # of the experts' parameters
    mask: Array | None  # of dropout
    p: float


def mixture_forward(
    params: Tree, x: ArrayBTD, config: Config, batch: Batch, workspace: dict | None = None
) -> tuple[ArrayBTD, MixtureCache]:
    """x + D(mixture(norm₂(x))): x (B, T, D) -> (x (B, T, D), cache)."""
    h, normed = norms.rms_forward(params["norm2"], x, eps=config.eps)
    expert = mixture_layer.KINDS[config.expert]
    if config.expert_dropout and batch.rng is not None:
        expert = experts.with_dropout(expert, config.expert_dropout, batch.rng)
    router, options, _ = router_of(config, "encoder" if batch.memory is None else "decoder")
    m, mixture = mixture_layer.forward(
        {**params, "experts": _with_biases(params["experts"], config)},
        h.reshape(-1, config.d_model),
        expert=expert,
        router=mixture_layer.router_of(router),
        options=options,
        valid=None if batch.valid is None else batch.valid.ravel(),
        training=batch.training,
        rng=batch.rng,
        ids=batch.ids.ravel(),
        workspace=workspace,
    )
    m, mask = dropout.forward(m.reshape(x.shape), config.dropout, batch.rng)
    names = tuple(params["experts"]) if isinstance(params["experts"], dict) else ()
    return x + m, MixtureCache(normed, mixture, names, mask, config.dropout)


def mixture_backward(
    dx: ArrayBTD, cache: MixtureCache, added: BalanceLoss | None = None
) -> tuple[ArrayBTD, Tree]:
    """dx of the output -> dx of the input, grads; `added` as in `mixture_layer.backward`."""
    dm = dropout.backward(dx, cache.mask, cache.p)
    dh, grads = mixture_layer.backward(dm.reshape(-1, dx.shape[-1]), cache.mixture, added)
    grads["experts"] = {name: grads["experts"][name] for name in cache.names}  # no zero biases
    dh, grads["norm2"] = norms.rms_backward(dh.reshape(dx.shape), cache.norm)
    return dx + dh, grads


class _ZeroBiased:
    """Experts in a file (`moe_np.models.checkpoints`), with biases of 0."""

    def __init__(self, stored):
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored)

    def read(self, numbers: ArrayE) -> Params:
        return _zero_biases(self._stored.read(numbers))


def _with_biases(params, config):
    """The parameters as the kind of expert wants them: where the model has no biases, they are 0.

    Their number is that of the features, and not that of the weights.
    """
    if config.biases or config.expert == "swiglu":
        return params
    return _zero_biases(params) if isinstance(params, dict) else _ZeroBiased(params)


def _zero_biases(params):
    ends = {"b1": "w1", "b2": "w2"}
    zeros = {
        bias: np.zeros((len(params[w]), params[w].shape[-1]), params[w].dtype)
        for bias, w in ends.items()
        if np.ndim(params.get(w)) == 3
    }
    return {**params, **zeros}


# --- a block --------------------------------------------------------------------------------------


class BlockKeyValues(NamedTuple):
    """Keys and values of a block of the decoder in generation."""

    attention: KeyValues  # of earlier positions
    cross: KeyValues  # of the memory; filled in the first step


class BlockCache(NamedTuple):
    """What the backward pass of a block needs."""

    attention: AttentionCache
    cross: AttentionCache | None  # None in the encoder
    mixture: MixtureCache


def block_forward(
    params: Tree,
    x: ArrayBTD,
    config: Config,
    batch: Batch,
    *,
    kv: BlockKeyValues | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTD, BlockCache]:
    """Self attention, in the decoder cross attention, mixture: x (B, T, D) -> (x, cache)."""
    rng = batch.rng
    cross = None
    x, attended = attention_forward(
        params["norm1"],
        params["attention"],
        x,
        config,
        rng,
        causal=batch.memory is not None,
        bias=batch.bias,
        valid=batch.valid_keys,
        kv=None if kv is None else kv.attention,
    )
    if batch.memory is not None:
        options = {"causal": False, "memory": batch.memory.x, "valid": batch.memory.valid}
        options["kv"] = None if kv is None else kv.cross
        both = (params["norm_cross"], params["cross"])
        x, cross = attention_forward(*both, x, config, rng, **options)
    x, mixture = mixture_forward(params, x, config, batch, workspace)
    return x, BlockCache(attended, cross, mixture)


class BlockGradients(NamedTuple):
    """What `block_backward` returns: of the input, the parameters, and what blocks share."""

    x: ArrayBTD
    params: Tree
    bias: Bias
    memory: ArrayBTD | None


def block_backward(
    dx: ArrayBTD, cache: BlockCache, added: BalanceLoss | None = None
) -> BlockGradients:
    """The forward pass, turned round: dx of the output (B, T, D) -> all gradients.

    added   the load-balancing losses of this layer, whose gradients its router gets as well
    """
    dmemory = None
    dx, grads = mixture_backward(dx, cache.mixture, added)
    if cache.cross is not None:
        dx, grads["norm_cross"], cross = attention_backward(dx, cache.cross)
        grads["cross"] = cross.params
        dmemory = cross.memory
    dx, grads["norm1"], inner = attention_backward(dx, cache.attention)
    grads["attention"] = inner.params
    assert inner.bias is not None  # self attention has one
    return BlockGradients(dx, grads, inner.bias, dmemory)


# --- a stack --------------------------------------------------------------------------------------


class Cache(NamedTuple):
    """What the backward pass of a stack and the load-balancing losses need."""

    embedding: embedding.Cache
    embedding_mask: Array | None  # of dropout
    position: position_bias.Cache
    blocks: list[BlockCache]
    norm: norms.RmsCache
    norm_mask: Array | None
    p: float  # of dropout
    valid: ArrayBT | None


def forward(
    embed: Params,
    params: Tree,
    ids: ArrayBT,
    config: Config,
    *,
    memory: Memory | None = None,
    valid: ArrayBS | None = None,
    training: bool = False,
    rng: Rng | None = None,
    kv: list[BlockKeyValues] | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTD, Cache]:
    """ids (B, T) -> (x (B, T, D), cache), without checks of ids and sizes.

    memory   of the source: this is the decoder. None: this is the encoder
    valid    (B, T), with kv (B, S) also of the positions that it holds
    kv       one per layer of the decoder, in generation

    An error in a layer names the stack and the layer.
    """
    first = 0 if kv is None else kv[0].attention.length
    T = ids.shape[1]
    bias, position = position_bias.forward(
        params["position"],
        T,
        first + T,
        bidirectional=memory is None,
        max_distance=config.max_distance,
        offset=first,
    )
    now = None if valid is None else valid[:, first:]
    batch = Batch(ids, bias, now, valid, memory, rng, training)
    x, embedded = embedding.forward(embed, ids)
    x, embedding_mask = dropout.forward(x, config.dropout, rng)
    blocks = []
    stack = "encoder" if memory is None else "decoder"
    for i, layer in enumerate(params["layers"]):
        kept = None if kv is None else kv[i]
        space = None if workspace is None else workspace.setdefault((stack, i), {})
        try:
            x, block = block_forward(layer, x, config, batch, kv=kept, workspace=space)
        except InputError as error:
            raise InputError(f"{stack}, layer {i}: {error}") from None
        blocks.append(block)
    x, norm = norms.rms_forward(params["norm"], x, eps=config.eps)
    x, norm_mask = dropout.forward(x, config.dropout, rng)
    masks = (embedding_mask, position, blocks, norm, norm_mask)
    return x, Cache(embedded, *masks, config.dropout, now)


def backward(
    dx: ArrayBTD, cache: Cache, added: Sequence[BalanceLoss | None]
) -> tuple[Params, Tree, ArrayBTD | None]:
    """dx (B, T, D) -> the gradients of the embedding, of the stack's parameters, of the memory.

    added   per layer its load-balancing losses, or None
    """
    dx = dropout.backward(dx, cache.norm_mask, cache.p)
    dx, dnorm = norms.rms_backward(dx, cache.norm)
    layers: list[Tree] = []
    biases = []
    memories = []
    for block, balance in reversed(list(zip(cache.blocks, added, strict=True))):
        gradients = block_backward(dx, block, balance)
        dx = gradients.x
        layers.insert(0, gradients.params)
        biases.append(gradients.bias)
        memories.append(gradients.memory)
    dposition = position_bias.backward(sum(biases[1:], biases[0]), cache.position)
    dx = dropout.backward(dx, cache.embedding_mask, cache.p)
    grads = {"position": dposition, "layers": layers, "norm": dnorm}
    dmemory = None if memories[0] is None else sum(memories[1:], memories[0])
    return embedding.backward(dx, cache.embedding), grads, dmemory
