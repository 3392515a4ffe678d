"""A decoder with experts: the language models Mixtral, OLMoE, Qwen-MoE, DeepSeekMoE and the layout
of GLaM, from one block. Which of them it is, is a value of `Config`.

    x⁰ = embed[ids]
    a  = xˡ + attention(norm₁(xˡ))           causal, grouped queries, rotary positions
    xˡ⁺¹ = a + mixture(norm₂(a))             router, experts, shared experts; or one network
    logits = norm(xᴸ) · head                 head = embedᵀ where it is tied

    here      shape         meaning
    ids       (B, T)        token numbers of B sequences
    x         (B, T, D)     the residual stream, to which each layer adds
    logits    (B, T, V)     of the next token, at every position

The parameters, and the values of `Config` that make these models, are in
`moe_np.models.decoder_config`. A layer without experts is one expert that every token passes:
there is no second kind of layer.

Any router of `moe_np.routing` that is causal can be named. A capacity counts tokens in their order,
also those of other sequences: no look into the future, but generation cannot repeat it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayBTD, Rng
from moe_np.layers import (
    attention,
    balance,
    cross_entropy,
    dropout,
    embedding,
    experts,
    mixture_layer,
    norms,
    projections,
    rotary,
)
from moe_np.layers.key_values import KeyValues
from moe_np.layers.mixture_layer import Losses
from moe_np.models import decoder_config
from moe_np.models.decoder_config import Config, Tree, check, check_params, init, is_dense
from moe_np.routing import contract
from moe_np.routing.contract import BalanceLoss, Routing

__all__ = ["Config", "backward", "block_backward", "block_forward", "forward", "hidden", "init"]
__all__ += ["is_dense", "loss", "loss_and_grads"]

ArrayBT = Annotated[np.ndarray, "B, T"]
ArrayBS = Annotated[np.ndarray, "B, S"]
ArrayBTV = Annotated[np.ndarray, "B, T, V"]

SWITCH_LOSS: Losses = ((0.01, balance.switch),)


# --- a block --------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """What all blocks of one pass have in common."""

    ids: ArrayBT
    rotary: rotary.Rotary
    valid: ArrayBT | None  # False at padding
    valid_keys: ArrayBS | None  # the same, with the positions before these in generation
    rng: Rng | None  # of dropout, and of routers that draw; None in evaluation
    training: bool


class BlockCache(NamedTuple):
    """What the backward pass of a block needs."""

    norm1: norms.RmsCache
    attention: attention.Cache | None
    attention_mask: Array | None  # of dropout
    norm2: norms.RmsCache
    mixture: mixture_layer.Cache
    mixture_mask: Array | None
    p: float  # of dropout


def block_forward(
    params: Tree,
    x: ArrayBTD,
    config: Config,
    layer: int,
    batch: Batch,
    *,
    kv: KeyValues | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTD, BlockCache]:
    """a = x + attention(norm₁(x)), a + mixture(norm₂(a)): x (B, T, D) -> (x (B, T, D), cache).

    layer       its number, which decides on the window
    kv          keys and values of earlier positions, in generation; those of x are appended
    workspace   as in `sparse_layer.forward`
    """
    p = config.dropout
    h, norm1 = norms.rms_forward(params["norm1"], x, eps=config.eps)
    a, attended = attend(params["attention"], h, config, layer, batch, kv)
    a, attention_mask = dropout.forward(a, p, batch.rng)

    x, h, norm2 = norms.add_rms_forward(params["norm2"], x, a, eps=config.eps)  # x + a, its norm
    m, mixture = _mixture(params, h, config, batch, workspace)
    m, mixture_mask = dropout.forward(m, p, batch.rng)
    return x + m, BlockCache(norm1, attended, attention_mask, norm2, mixture, mixture_mask, p)


def block_backward(
    dx: ArrayBTD, cache: BlockCache, added: BalanceLoss | None = None
) -> tuple[ArrayBTD, Tree]:
    """The forward pass, turned round: dx of the output -> dx of the input (B, T, D), grads.

    At each residual, dx goes both into the sublayer and past it.

    added   the load-balancing losses of this layer, whose gradients its router gets as well
    """
    dm = dropout.backward(dx, cache.mixture_mask, cache.p)
    dh, grads = mixture_layer.backward(dm.reshape(-1, dx.shape[-1]), cache.mixture, added)
    dx, grads["norm2"] = norms.add_rms_backward(dx, dh.reshape(dx.shape), cache.norm2)

    assert cache.attention is not None, "generation, with kv, has no backward pass"
    da = dropout.backward(dx, cache.attention_mask, cache.p)
    dh, grads["attention"] = attention.backward(da, cache.attention)
    dx, grads["norm1"] = norms.add_rms_backward(dx, dh, cache.norm1)
    return dx, grads


def attend(
    params: Tree, h: ArrayBTD, config: Config, layer: int, batch: Batch, kv: KeyValues | None = None
) -> tuple[ArrayBTD, attention.Cache | None]:
    """`attention.forward` with the values of the config: h (B, T, D) -> a (B, T, D), cache."""
    names = ("heads", "kv_heads", "eps", "clip_qkv")
    values: dict[str, Any] = {name: getattr(config, name) for name in names}
    values |= {"causal": True, "window": decoder_config.window_of(config, layer), "kv": kv}
    return attention.forward(params, h, rotary=batch.rotary, valid=batch.valid_keys, **values)


def _mixture(params, h, config, batch, workspace):
    expert = mixture_layer.KINDS[config.expert]
    if config.expert_dropout and batch.rng is not None:
        expert = experts.with_dropout(expert, config.expert_dropout, batch.rng)
    m, cache = mixture_layer.forward(
        params,
        h.reshape(-1, config.d_model),
        expert=expert,
        router=mixture_layer.router_of(config.router),
        options=config.options,
        valid=None if batch.valid is None else batch.valid.ravel(),
        training=batch.training,
        rng=batch.rng,
        ids=batch.ids.ravel(),
        workspace=workspace,
    )
    return m.reshape(h.shape), cache


# --- the model ------------------------------------------------------------------------------------


class Cache(NamedTuple):
    """What the backward pass and the load-balancing losses need."""

    embedding: embedding.Cache
    blocks: list[BlockCache]
    norm: norms.RmsCache
    x: ArrayBTD  # after the last norm
    head: Array  # (D, V), or tied the embedding, (V, D)
    tied: bool
    valid: ArrayBT | None


def forward(
    params: Tree,
    ids: ArrayBT,
    config: Config,
    *,
    valid: ArrayBT | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTV, Cache]:
    """ids (B, T) -> (logits (B, T, V), cache). logits[:, t] depend on ids[:, :t + 1] alone.

    valid       (B, T), False at padding: no token attends to it, and it gets no routed expert
    training    whether routers behave as in training; None: if there is an rng
    rng         for dropout and for routers that draw
    workspace   a dict whose arrays are used again from one step to the next; the cache and the
                gradients of the experts hold until then

    Raises InputError for ids outside of the vocabulary, more than config.context positions, no
    position, parameters that do not fit the config, and a router that is not causal.
    """
    check(config)
    x, cache = hidden(
        params, ids, config, valid=valid, training=training, rng=rng, workspace=workspace
    )
    return projections.rows(x, cache.head, transposed=cache.tied), cache


def hidden(
    params: Tree,
    ids: ArrayBT,
    config: Config,
    *,
    valid: ArrayBS | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
    kv: Sequence[KeyValues] | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTD, Cache]:
    """`forward` without the head and without the check of the config: -> x (B, T, D), cache.

    kv      one per layer, in generation: ids stand behind the positions that it holds
    valid   (B, S), with kv also of the positions that it holds

    An error in a layer names the layer.
    """
    training, rng = contract.check_training(training, rng)
    ids = checks.array("ids", ids, ("B", "T"), kind="i")
    first = 0 if kv is None else kv[0].length
    B, T = ids.shape
    if not 1 <= T <= config.context - first:
        wanted = f"1 to {config.context - first} positions, the model's context"
        raise InputError(f"ids: wanted {wanted}, got {T}")
    check_params(params, config)
    valid_keys = None if valid is None else checks.mask("valid", valid, (B, first + T))
    valid = None if valid_keys is None else valid_keys[:, first:]

    x, embedded = embedding.forward(params["embed"], ids)
    positions = np.arange(first, first + T)
    turned = rotary.angles(positions, config.d_head, theta=config.theta, dtype=x.dtype)
    batch = Batch(ids, turned, valid, valid_keys, rng, training)
    blocks = []
    for i, layer in enumerate(params["layers"]):
        kept = None if kv is None else kv[i]
        space = None if workspace is None else workspace.setdefault(i, {})
        try:
            x, block = block_forward(layer, x, config, i, batch, kv=kept, workspace=space)
        except InputError as error:
            raise InputError(f"layer {i}: {error}") from None
        blocks.append(block)
    x, norm = norms.rms_forward(params["norm"], x, eps=config.eps)
    w = params["embed" if config.tied else "head"]["w"]
    return x, Cache(embedded, blocks, norm, x, w, config.tied, valid)


def backward(
    dlogits: ArrayBTV, cache: Cache, added: Sequence[BalanceLoss | None] | None = None
) -> Tree:
    """dlogits (B, T, V) -> the gradients of all parameters, with their structure.

    added   per layer its load-balancing losses; None: there are none
    """
    shape = (*cache.x.shape[:2], cache.embedding.vocabulary)
    dlogits = checks.array("dlogits", dlogits, shape, finite=False)
    dx, dhead = projections.rows_backward(dlogits, cache.x, cache.head, transposed=cache.tied)
    return _backward(dx, dhead, cache, added)


def _backward(dx, dhead, cache, added):  # dx of the output of the last norm
    dx, dnorm = norms.rms_backward(dx, cache.norm)
    layers: list[Tree] = []
    for i, block in reversed(list(enumerate(cache.blocks))):
        dx, grads = block_backward(dx, block, None if added is None else added[i])
        layers.insert(0, grads)
    dembed = embedding.backward(dx, cache.embedding)
    if cache.tied:  # one matrix, with a gradient from both of its uses
        return {"embed": {"w": dembed["w"] + dhead}, "layers": layers, "norm": dnorm}
    return {"embed": dembed, "layers": layers, "norm": dnorm, "head": {"w": dhead}}


class Loss(NamedTuple):
    """What `loss` and `loss_and_grads` measure. The gradients are those of task + Σ balance."""

    task: float  # mean of −log p(target), nats per valid target; perplexity is of this alone
    balance: tuple[float, ...]  # the load-balancing losses of each layer, with their coefficients
    tokens: int  # number of valid targets
    routings: tuple[Routing, ...]  # of each layer


def loss(
    params: Tree,
    ids: ArrayBT,
    targets: ArrayBT,
    config: Config,
    *,
    losses: Losses = SWITCH_LOSS,
    valid: ArrayBT | None = None,
    ignore: int = -1,
) -> Loss:
    """The loss in evaluation: no dropout, no noise. The arguments are those of `loss_and_grads`."""
    logits, cache = forward(params, ids, config, valid=valid)
    targets = checks.array("targets", targets, logits.shape[:2], kind="i").ravel()
    rows = logits.reshape(-1, config.vocabulary)
    _, entropy = cross_entropy.forward(rows, targets, ignore=ignore)
    return _measured(entropy, _balance(cache, losses), cache)


def loss_and_grads(
    params: Tree,
    ids: ArrayBT,
    targets: ArrayBT,
    config: Config,
    *,
    losses: Losses = SWITCH_LOSS,
    valid: ArrayBT | None = None,
    ignore: int = -1,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[Loss, Tree]:
    """One step of training: ids and targets (B, T) -> (Loss, gradients of all parameters).

    loss = (1/n) Σ_{n valid targets} −log softmax(logits)_target + Σ_layers Σ coefficient · balance

    losses   pairs of a coefficient and a loss of moe_np.layers.balance. It is one term per layer,
             over that layer's valid tokens: experts that are overused in one layer do not make up
             for others in another (errata 27)
    targets  the next token of each position; `ignore` marks a position without one
    """
    check(config)
    x, cache = hidden(params, ids, config, valid=valid, training=True, rng=rng, workspace=workspace)
    targets = checks.array("targets", targets, x.shape[:2], kind="i").ravel()
    rows = x.reshape(-1, config.d_model)
    _, entropy = cross_entropy.head_forward(
        {"w": cache.head}, rows, targets, tied=config.tied, ignore=ignore
    )
    added = _balance(cache, losses)
    dx, dhead = cross_entropy.head_backward(1.0, entropy)
    grads = _backward(dx.reshape(x.shape), dhead["w"], cache, added)
    return _measured(entropy, added, cache), grads


def _balance(cache, losses):
    """The load-balancing losses of each layer."""
    valid = None if cache.valid is None else cache.valid.ravel()
    return [mixture_layer.balance_loss(losses, block.mixture, valid) for block in cache.blocks]


def _measured(entropy, added, cache):
    task = entropy.total / max(entropy.n_valid, 1)
    routings = tuple(block.mixture.routing for block in cache.blocks)
    return Loss(task, tuple(term.value for term in added), entropy.n_valid, routings)
