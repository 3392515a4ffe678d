"""An encoder-decoder with experts: the Switch Transformer (Fedus, Zoph and Shazeer 2021, arXiv
2101.03961) in the layout of T5 (Raffel et al. 2020, arXiv 1910.10683).

    memory = encoder(source)                   every position sees the whole source
    x      = decoder(inputs, memory)           a position sees itself and those before it
    logits = D^(−1/2) x · embedᵀ               where the head is tied
    logits = x · head                          where it is not

    here      shape         meaning
    source    (B, S)        token numbers
    inputs    (B, T)        teacher forcing: the targets, one position later, after a start token
    targets   (B, T)        what is to be predicted; `ignore` where there is no target
    logits    (B, T, V)     of the token at each position of the targets

The blocks are in `moe_np.models.encoder_decoder_stack`; the parameters, and the values of `Config`,
in `moe_np.models.encoder_decoder_config`. A layer without experts is one expert that every token
passes.

In the encoder, any router of `moe_np.routing` can be named; in the decoder, one that is causal. A
capacity counts the tokens of the whole batch in their order, without padding. The factor D^(−1/2)
stands with the tied head alone: a head of its own is learned with its size.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayBT, ArrayBTD, ArrayBTV, Rng
from moe_np.layers import balance, cross_entropy, mixture_layer
from moe_np.models import encoder_decoder_stack as stacks
from moe_np.models import recurrent_blocks
from moe_np.models.encoder_decoder_config import (
    Config,
    Tree,
    check,
    check_params,
    init,
    is_dense,
    layers_of,
)
from moe_np.models.encoder_decoder_stack import Memory
from moe_np.models.translation import shift_right
from moe_np.routing import contract
from moe_np.routing.contract import BalanceLoss, Routing

__all__ = ["Added", "Config", "Loss", "backward", "encode", "forward", "hidden", "init", "is_dense"]
__all__ += ["layers_of", "loss", "loss_and_grads", "shift_right"]

ArrayBS = Annotated[np.ndarray, "B, S"]

SWITCH_LOSS: mixture_layer.Losses = ((0.01, balance.switch),)


class Cache(NamedTuple):
    """What the backward pass and the load-balancing losses need."""

    encoder: stacks.Cache
    decoder: stacks.Cache
    x: ArrayBTD  # what the head reads, the factor D^(−1/2) included
    head: Array  # (D, V)
    tied: bool


class Added(NamedTuple):
    """Load-balancing losses per layer; None for a layer without."""

    encoder: Sequence[BalanceLoss | None]
    decoder: Sequence[BalanceLoss | None]


# --- forward --------------------------------------------------------------------------------------


def forward(
    params: Tree, source: ArrayBS, inputs: ArrayBT, config: Config, **options: Any
) -> tuple[ArrayBTV, Cache]:
    """source (B, S), inputs (B, T) -> (logits (B, T, V), cache). logits[:, t] depend on the whole
    source and on inputs[:, :t + 1].

    options   those of `hidden`
    """
    x, cache = hidden(params, source, inputs, config, **options)
    return x @ cache.head, cache


def hidden(
    params: Tree,
    source: ArrayBS,
    inputs: ArrayBT,
    config: Config,
    *,
    source_valid: ArrayBS | None = None,
    valid: ArrayBT | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTD, Cache]:
    """`forward` without the head: -> (x (B, T, D), cache). x has the factor D^(−1/2) where the head
    is tied.

    source_valid   (B, S), False at padding: no token attends to it, and it gets no routed expert
    valid          (B, T), the same of the inputs
    training       whether routers behave as in training; None: if there is an rng
    rng            for dropout and for routers that draw
    workspace      a dict whose arrays are used again from one step to the next; the cache and the
                   gradients of the experts hold until then

    Raises InputError for ids outside of the vocabulary, more than config.context positions, no
    position, parameters that do not fit the config, and a decoder's router that is not causal.
    """
    both: dict[str, Any] = {"training": training, "rng": rng, "workspace": workspace}
    memory, encoder = encode(params, source, config, source_valid=source_valid, **both)
    x, decoder = decode(params, inputs, config, memory, valid=valid, **both)
    return x, Cache(encoder, decoder, x, head_of(params, config), config.tied)


def encode(
    params: Tree,
    source: ArrayBS,
    config: Config,
    *,
    source_valid: ArrayBS | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[Memory, stacks.Cache]:
    """The encoder: source (B, S) -> (Memory of x (B, S, D) and the padding, cache).

    The arguments are those of `forward`.
    """
    check(config)
    check_params(params, config)
    training, rng = contract.check_training(training, rng)
    source = _check_ids("source", source, ("B", "S"), config.context)
    valid = (
        None if source_valid is None else checks.mask("source_valid", source_valid, source.shape)
    )
    both: dict[str, Any] = {"training": training, "rng": rng, "workspace": workspace}
    x, cache = stacks.forward(
        params["embed"], params["encoder"], source, config, valid=valid, **both
    )
    return Memory(x, valid), cache


def decode(
    params: Tree,
    inputs: ArrayBT,
    config: Config,
    memory: Memory,
    *,
    valid: ArrayBS | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
    kv: list[stacks.BlockKeyValues] | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTD, stacks.Cache]:
    """The decoder without the head: inputs (B, T) -> (x (B, T, D), cache), as `hidden`. Config and
    parameters are those that `encode` has checked.

    kv   one per layer, in generation: inputs stand behind the positions that it holds, and `valid`
         has those positions too
    """
    training, rng = contract.check_training(training, rng)
    first = 0 if kv is None else kv[0].attention.length
    inputs = _check_ids("inputs", inputs, (len(memory.x), "T"), config.context)
    B, T = inputs.shape
    valid = None if valid is None else checks.mask("valid", valid, (B, first + T))
    both: dict[str, Any] = {"training": training, "rng": rng, "workspace": workspace}
    sides: dict[str, Any] = {"memory": memory, "valid": valid, "kv": kv}
    x, cache = stacks.forward(params["embed"], params["decoder"], inputs, config, **sides, **both)
    return x * _head_factor(x, config.tied), cache


def head_of(params: Tree, config: Config) -> Array:
    """The matrix (D, V) that makes logits of what `hidden` and `decode` return."""
    return params["embed"]["w"].T if config.tied else params["head"]["w"]


def _head_factor(x, tied):
    return x.dtype.type(x.shape[-1] ** -0.5 if tied else 1)


def _check_ids(name, ids, shape, most):
    ids = checks.array(name, ids, shape, kind="i")
    if not 1 <= ids.shape[1] <= most:
        wanted = f"1 to {most} positions, the model's context"
        raise InputError(f"{name}: wanted {wanted}, got {ids.shape[1]}")
    return ids


# --- backward -------------------------------------------------------------------------------------


def backward(dlogits: ArrayBTV, cache: Cache, added: Added | None = None) -> Tree:
    """dlogits (B, T, V) -> the gradients of all parameters, with their structure.

    added   the load-balancing losses of the layers; None: there are none
    """
    B, T, D = cache.x.shape
    dlogits = checks.array("dlogits", dlogits, (B, T, cache.head.shape[1]), finite=False)
    rows = dlogits.reshape(B * T, -1)
    dhead = cache.x.reshape(B * T, D).T @ rows
    return hidden_backward((rows @ cache.head.T).reshape(B, T, D), dhead, cache, added)


def hidden_backward(dx: ArrayBTD, dhead: Array, cache: Cache, added: Added | None = None) -> Tree:
    """dx (B, T, D), the gradient dhead (D, V) -> the gradients of all parameters.

    The memory's gradient is the sum of what all cross attentions give; that of the embedding has
    the source, the inputs and, where it is tied, the head.
    """
    if added is None:
        added = Added([None] * len(cache.encoder.blocks), [None] * len(cache.decoder.blocks))
    dx = dx * _head_factor(dx, cache.tied)
    dinputs, decoder, dmemory = stacks.backward(dx, cache.decoder, added.decoder)
    assert dmemory is not None  # the decoder has cross attention
    dsource, encoder, _ = stacks.backward(dmemory, cache.encoder, added.encoder)
    dembed = dsource["w"] + dinputs["w"]
    if cache.tied:
        dembed = dembed + dhead.T
    grads = {"embed": {"w": dembed}, "encoder": encoder, "decoder": decoder}
    return grads if cache.tied else {**grads, "head": {"w": dhead}}


# --- the loss -------------------------------------------------------------------------------------


class Loss(NamedTuple):
    """What `loss` and `loss_and_grads` measure. The gradients are those of task + Σ balance.

    The tuples have one entry per layer, those of the encoder before those of the decoder.
    """

    task: float  # mean of −log p(target), nats per valid target; perplexity is of this alone
    balance: tuple[float, ...]  # Σ coefficient · loss; 0 for a dense layer
    tokens: int  # number of valid targets
    routings: tuple[Routing, ...]
    terms: tuple[dict[str, float], ...]  # each loss by its name, without coefficient
    encoder_layers: int  # how many of the entries are the encoder's


def loss(
    params: Tree,
    source: ArrayBS,
    targets: ArrayBT,
    config: Config,
    *,
    losses: mixture_layer.Losses = SWITCH_LOSS,
    source_valid: ArrayBS | None = None,
    valid: ArrayBT | None = None,
    ignore: int = -1,
    smoothing: float = 0.0,
) -> Loss:
    """The loss in evaluation: no dropout, no noise. The arguments are those of `loss_and_grads`."""
    inputs, valid = _forced(targets, valid, config, ignore)
    x, cache = hidden(params, source, inputs, config, source_valid=source_valid, valid=valid)
    rows = (x @ cache.head).reshape(-1, config.vocabulary)
    _, entropy = cross_entropy.forward(rows, np.ravel(targets), ignore=ignore, smoothing=smoothing)
    task = entropy.total / max(entropy.n_valid, 1)
    return _measured(task, entropy.n_valid, cache, tuple(losses))[0]


def loss_and_grads(
    params: Tree,
    source: ArrayBS,
    targets: ArrayBT,
    config: Config,
    *,
    losses: mixture_layer.Losses = SWITCH_LOSS,
    source_valid: ArrayBS | None = None,
    valid: ArrayBT | None = None,
    ignore: int = -1,
    smoothing: float = 0.0,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[Loss, Tree]:
    """One step of training by teacher forcing: source (B, S), targets (B, T) -> (Loss, gradients).

    loss = (1/n) Σ_{n valid targets} −log softmax(logits)_target + Σ_layers Σ coefficient · balance

    losses      pairs of a coefficient and a loss of moe_np.layers.balance, for the layers of both
                stacks: one term per layer, over that layer's valid tokens (errata 27)
    targets     with an end token; `ignore` marks a position without a target
    valid       (B, T), False at padding. None: what comes after the last target of a sequence
    smoothing   of labels, as in `cross_entropy.forward`

    The decoder reads `shift_right(targets, config.start)`. The other arguments are those of
    `forward`.
    """
    inputs, valid = _forced(targets, valid, config, ignore)
    options: dict[str, Any] = {"source_valid": source_valid, "valid": valid, "rng": rng}
    options["workspace"] = workspace
    x, cache = hidden(params, source, inputs, config, training=True, **options)
    task, head = cross_entropy.head_forward(
        params["embed"] if config.tied else params["head"],
        x.reshape(-1, config.d_model),
        np.ravel(targets),
        tied=config.tied,
        ignore=ignore,
        smoothing=smoothing,
    )
    dx, dw = cross_entropy.head_backward(1.0, head)
    measured, added = _measured(task, head.n_valid, cache, tuple(losses))
    dhead = dw["w"].T if config.tied else dw["w"]
    return measured, hidden_backward(dx.reshape(x.shape), dhead, cache, added)


def _forced(targets, valid, config, ignore):
    """Inputs of the decoder, and which of them are no padding."""
    targets = checks.array("targets", targets, ("B", "T"), kind="i")
    if valid is None and (targets == ignore).any():
        valid = np.logical_or.accumulate((targets != ignore)[:, ::-1], axis=1)[:, ::-1]
    return shift_right(targets, config.start, ignore=ignore), valid


def _measured(task, tokens, cache, losses):
    """-> the Loss, and the load-balancing losses per layer for the backward pass."""
    added = []
    terms = []
    mixtures = []
    for stack in (cache.encoder, cache.decoder):
        for block in stack.blocks:
            mixture = block.mixture.mixture
            total, by_name = recurrent_blocks.balance_losses(losses, mixture, stack.valid)
            added.append(total)
            terms.append(by_name)
            mixtures.append(mixture)
    n = len(cache.encoder.blocks)
    values = tuple(total.value for total in added)
    routings = tuple(mixture.routing for mixture in mixtures)
    measured = Loss(task, values, tokens, routings, tuple(terms), n)
    return measured, Added(added[:n], added[n:])
