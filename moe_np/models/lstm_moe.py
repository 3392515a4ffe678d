"""The language model of Shazeer et al. 2017 (arXiv 1701.06538): LSTM, experts, LSTM.

    x⁰ = D(embed[ids])
    x¹ = x⁰ + D(LSTM₁(x⁰))
    x² = x¹ + D(σ(Σ_i G(x¹)_i E_i(x¹)))                    section 2; σ and D: appendix C.1
    x³ = x² + D(LSTM₂(x²))
    logits = x³ head

    paper        here                 shape                  meaning
    D            dropout                                     of each layer's output, in training
    G            mixture.router                              noisy top-k gating, or any other
    E_i          mixture.experts      (E, D, H), (E, H, D)   one hidden layer of ReLUs
    LSTM         lstm1, lstm2                                with a projection to D where `hidden`
                                                             is not D (appendix C.2)
    –            ids                  (B, T)                 token numbers
    –            logits               (B, T, V)              of the next token

"For every layer other than the softmax" the output is dropped out, and then the output of the
previous layer is added to it. The experts' output passes a sigmoid first. The paper's flat models
have k = 4, the hierarchical ones (`router="hierarchical"`, appendix B) two groups and two experts
in each. The experts here have biases, which the paper's have not.

The load-balancing losses are w_importance CV²(Importance) and w_load CV²(Load), .1 each; the
hierarchical gate here has no noise, hence no load loss. They are reported apart from the task.

Text is read in stretches: `Cache.state` is the state to go on with, and its gradient is left out
(truncated backpropagation through time).
"""

import contextlib
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayBT, ArrayBTD, ArrayBTV, DType, Options, Rng
from moe_np.layers import (
    balance,
    cross_entropy,
    dropout,
    embedding,
    lstm,
    mixture_layer,
    products,
    router_options,
)
from moe_np.models import recurrent_blocks
from moe_np.models.recurrent_blocks import Losses
from moe_np.routing import contract
from moe_np.routing.contract import BalanceLoss, Routing

Tree = dict[str, Any]  # nested parameters, or their gradients
States = tuple[lstm.State, lstm.State]

NOISY_GATE: Options = {"k": 4}
HIERARCHICAL_GATE: Options = {"k_primary": 2, "k_secondary": 2, "renormalise": True}


class Config(NamedTuple):
    """Which model it is. All values are numbers, texts, and dicts of them."""

    vocabulary: int  # V
    d_model: int  # D
    experts: int  # E; 1: a dense layer without a router
    expert_hidden: int  # H of an expert
    hidden: int | None = None  # units of each LSTM; None: D, without a projection
    router: str = "noisy_top_k"  # a module of moe_np.routing
    options: Options = NOISY_GATE  # of the router's `route`
    init_options: Options | None = None  # of the router's `init`, as {"groups": 16}
    expert: str = "relu"
    dropout: float = 0.0


def check(config: Config) -> None:
    """Raise InputError for values that do not fit, and for a router that is not causal."""
    if not isinstance(config, Config):
        raise InputError(f"config: wanted a lstm_moe.Config, got {checks.text(config)}")
    for name in ("vocabulary", "d_model", "experts", "expert_hidden"):
        checks.size(f"config.{name}", getattr(config, name))
    if config.hidden is not None:
        checks.size("config.hidden", config.hidden)
    checks.number("config.dropout", config.dropout, minimum=0, less_than=1)
    checks.choice("config.expert", config.expert, tuple(mixture_layer.KINDS))
    mixture_layer.causal_router(config.router)
    if config.experts > 1:
        router_options.check(config.router, config.options, config.init_options)


def init(rng: Rng, config: Config, *, dtype: DType = np.float32) -> Tree:
    """{"embed": {"w"}, "lstm1", "mixture": {"router", "experts"}, "lstm2", "head": {"w"}}.

    Matrices are normal with standard deviation 1/√(number of inputs), and the forget gates' biases
    1. Noisy top-k gates are 0 (appendix A): no signal and some noise.
    """
    check(config)
    D = config.d_model
    units = {"hidden": config.hidden or D, "projection": D if config.hidden else None}
    head = rng.normal(size=(D, config.vocabulary)) / np.sqrt(D)
    return {
        "embed": embedding.init(rng, config.vocabulary, D, dtype=dtype),
        "lstm1": lstm.init(rng, D, **units, dtype=dtype),
        "mixture": mixture_layer.init(
            rng,
            D,
            config.experts,
            config.expert_hidden,
            kind=config.expert,
            router=config.router if config.experts > 1 else None,
            init_options=config.init_options,
            vocabulary=config.vocabulary,
            dtype=dtype,
        ),
        "lstm2": lstm.init(rng, D, **units, dtype=dtype),
        "head": {"w": head.astype(dtype)},
    }


# --- the model ------------------------------------------------------------------------------------


class Cache(NamedTuple):
    """What the backward pass needs, and the states after the last position."""

    embedding: embedding.Cache
    mask: Array | None  # of the embedding's dropout
    lstm1: recurrent_blocks.LstmBlock
    mixture: recurrent_blocks.MixtureBlock
    lstm2: recurrent_blocks.LstmBlock
    x: ArrayBTD  # what the head reads
    head: Array  # (D, V)
    valid: ArrayBT | None
    state: States


def forward(params: Tree, ids: ArrayBT, config: Config, **options: Any) -> tuple[ArrayBTV, Cache]:
    """ids (B, T) -> (logits (B, T, V), cache). logits[:, t] depend on ids[:, :t + 1] and `state`.

    options   those of `hidden`
    """
    x, cache = hidden(params, ids, config, **options)
    logits = products.forward(x.reshape(-1, config.d_model), cache.head)
    return logits.reshape(*x.shape[:2], cache.head.shape[1]), cache


def hidden(
    params: Tree,
    ids: ArrayBT,
    config: Config,
    *,
    state: States | None = None,
    valid: ArrayBT | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayBTD, Cache]:
    """`forward` without the head: ids (B, T) -> (x³ (B, T, D), cache).

    state       of both LSTMs, `Cache.state` of the stretch of text before; None: zeros
    valid       (B, T), False at padding, which has to come last: it gets no expert
    training    whether the router behaves as in training; None: if there is an rng
    rng         for dropout and for the noise of the router
    workspace   as in `sparse_layer.forward`

    Raises InputError for ids outside of the vocabulary, for states and parameters that do not fit,
    and for a router that is not causal.
    """
    check(config)
    training, rng = contract.check_training(training, rng)
    ids = checks.array("ids", ids, ("B", "T"), kind="i")
    valid = None if valid is None else checks.mask("valid", valid, ids.shape)
    before = (None, None) if state is None else state
    noise: dict[str, Any] = {"dropout_share": config.dropout, "rng": rng}
    options = {
        "expert": mixture_layer.KINDS[config.expert],
        "router": mixture_layer.causal_router(config.router),
        "options": config.options,
        "training": training,
        "ids": ids.ravel(),
        "workspace": workspace,
    }
    x, embedded = embedding.forward(params["embed"], ids)
    x, mask = dropout.forward(x, config.dropout, rng)
    with _part("lstm1"):
        x, state1, lstm1 = recurrent_blocks.lstm_forward(
            params["lstm1"], x, state=before[0], **noise
        )
    with _part("mixture"):
        x, mixture = recurrent_blocks.mixture_forward(
            params["mixture"], x, valid=valid, **noise, **options
        )
    with _part("lstm2"):
        x, state2, lstm2 = recurrent_blocks.lstm_forward(
            params["lstm2"], x, state=before[1], **noise
        )
    head = checks.array("params['head']['w']", params["head"]["w"], (config.d_model, "V"))
    blocks = (lstm1, mixture, lstm2)
    return x, Cache(embedded, mask, *blocks, x, head, valid, (state1, state2))


@contextlib.contextmanager
def _part(name):
    """Say in an error in which part of the model it came up."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def backward(dlogits: ArrayBTV, cache: Cache, added: BalanceLoss | None = None) -> Tree:
    """dlogits (B, T, V) -> the gradients of all parameters, with their structure.

    added   the load-balancing losses of the mixture, whose gradients go into the router too

    The gradient of the state before the first position is left out.
    """
    x = cache.x
    dlogits = checks.array("dlogits", dlogits, (*x.shape[:2], cache.head.shape[1]), finite=False)
    rows = dlogits.reshape(-1, dlogits.shape[-1])
    dhead = products.weight_gradient(x.reshape(-1, x.shape[-1]), rows)
    dx = products.input_gradient(rows, cache.head).reshape(x.shape)
    grads = hidden_backward(dx, cache, added)
    return {**grads, "head": {"w": dhead}}


def hidden_backward(dx: ArrayBTD, cache: Cache, added: BalanceLoss | None = None) -> Tree:
    """dx (B, T, D) -> the gradients of all parameters but the head."""
    dx, dlstm2 = recurrent_blocks.lstm_backward(dx, cache.lstm2)
    dx, dmixture = recurrent_blocks.mixture_backward(dx, cache.mixture, added)
    dx, dlstm1 = recurrent_blocks.lstm_backward(dx, cache.lstm1)
    dx = dropout.backward(dx, cache.mask, cache.lstm1.dropout)
    dembed = embedding.backward(dx, cache.embedding)
    return {"embed": dembed, "lstm1": dlstm1, "mixture": dmixture, "lstm2": dlstm2}


# --- the loss -------------------------------------------------------------------------------------


class Loss(NamedTuple):
    """What `loss_and_grads` measures. The gradients are those of task + Σ balance."""

    task: float  # mean of −log p(target), nats per valid target; perplexity is of this alone
    balance: tuple[float, ...]  # per mixture layer, here one: Σ coefficient · loss
    tokens: int  # number of valid targets
    routings: tuple[Routing, ...]  # per mixture layer
    terms: tuple[dict[str, float], ...]  # per mixture layer: each loss by name, no coefficient
    state: States  # after the last position, for the next stretch of text


def default_losses(config: Config) -> Losses:
    """The paper's: importance and load with .1 each; the load loss needs the noise of its gate."""
    losses: Losses = ((0.1, balance.importance),)
    return (*losses, (0.1, balance.load)) if config.router == "noisy_top_k" else losses


def loss_and_grads(
    params: Tree,
    ids: ArrayBT,
    targets: ArrayBT,
    config: Config,
    *,
    losses: Losses | None = None,
    state: States | None = None,
    valid: ArrayBT | None = None,
    ignore: int = -1,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[Loss, Tree]:
    """One step of training: ids and targets (B, T) -> (Loss, gradients of all parameters).

    losses   pairs of a coefficient and a loss of moe_np.layers.balance; None: `default_losses`
    targets  the next token of each position; `ignore` marks a position without one

    The other arguments are those of `forward`.
    """
    losses = default_losses(config) if losses is None else losses
    options = {"state": state, "valid": valid, "rng": rng, "workspace": workspace}
    x, cache = hidden(params, ids, config, training=True, **options)
    targets = checks.array("targets", targets, x.shape[:2], kind="i").ravel()
    rows = x.reshape(-1, config.d_model)
    task, head = cross_entropy.head_forward(params["head"], rows, targets, ignore=ignore)
    dx, dhead = cross_entropy.head_backward(1.0, head)

    mixture = cache.mixture.mixture
    added, terms = recurrent_blocks.balance_losses(losses, mixture, cache.valid)
    grads = {**hidden_backward(dx.reshape(x.shape), cache, added), "head": dhead}
    measured = (task, (added.value,), head.n_valid, (mixture.routing,))
    return Loss(*measured, (terms,), cache.state), grads
