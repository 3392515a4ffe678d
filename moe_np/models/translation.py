"""The translation model of Shazeer et al. 2017 (arXiv 1701.06538, appendix E): encoder and decoder
of LSTMs with experts, and attention between them; a smaller GNMT (Wu et al. 2016, arXiv
1609.08144).

    encoder    x⁰ = D(embed[source]),  x¹ = x⁰ + D([LSTM→(x⁰); LSTM←(x⁰)]),  x² = x¹ + D(LSTM₂(x¹)),
               x³ = x² + D(σ(Σ_i G(x²)_i E_i(x²))),  memory = x³ + D(LSTM₃(x³))
    decoder    y⁰ = D(embed[inputs]),  h, r = attentive LSTM(y⁰, memory),  y¹ = y⁰ + D(h),
               y² = y¹ + D(σ(Σ_i G(y¹)_i E_i(y¹))),  y³ = y² + D(LSTM([y²; r])),  logits = y³ head

    paper       here                         shape      meaning
    DropProb    dropout                                 of each layer's output, in training
    G, E_i      encoder.mixture,                        experts stand between layers 2 and 3 of the
                decoder.mixture                         encoder and 1 and 2 of the decoder
    –           source, source_valid         (B, S)     token numbers, False at padding
    –           inputs                       (B, T)     teacher forcing: the targets, one later
    –           r, context                   (B, T, D)  what the decoder attends to

As in GNMT, the first layer of the encoder reads in both directions, and the context goes to all
layers of the decoder. Each direction has half of the features, so that the residual fits. The paper
balances the experts strictly (appendix F, `strictly_balanced`); the encoder takes any router, the
decoder one that is causal. Its load-balancing losses have the coefficient .01.

Padding has to come last. It is not attended to, gets no expert, and is not in the loss.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayBT, ArrayBTD, ArrayBTV, Rng
from moe_np.layers import attentive_lstm, balance, cross_entropy, products
from moe_np.models import recurrent_blocks, translation_decoder, translation_encoder
from moe_np.models.recurrent_blocks import Losses
from moe_np.models.translation_config import Config, check, init
from moe_np.routing import contract
from moe_np.routing.contract import BalanceLoss, Routing

__all__ = ["Config", "backward", "check", "forward", "init", "loss_and_grads", "shift_right"]

Tree = dict[str, Any]  # nested parameters, or their gradients
PAPER_LOSSES: Losses = ((0.01, balance.importance), (0.01, balance.load))


class Cache(NamedTuple):
    """What the backward pass needs."""

    encoder: translation_encoder.Cache
    decoder: translation_decoder.Cache
    valid: ArrayBT | None  # of the decoder


def shift_right(targets: ArrayBT, start: int, *, ignore: int = -1) -> ArrayBT:
    """The inputs of the decoder in teacher forcing: the start token, then the targets but the last.

    targets (B, T) -> inputs (B, T). Padding becomes the start token, which is a token number.
    """
    targets = checks.array("targets", targets, ("B", "T"), kind="i")
    start = checks.integer("start", start, minimum=0)
    first = np.full((len(targets), 1), start, targets.dtype)
    inputs = np.concatenate([first, targets[:, :-1]], axis=1)[:, : targets.shape[1]]
    return np.where(inputs == ignore, start, inputs)


def forward(
    params: Tree, source: ArrayBT, inputs: ArrayBT, config: Config, **options: Any
) -> tuple[ArrayBTV, Cache]:
    """source (B, S), inputs (B, T) -> (logits (B, T, V), cache). logits[:, t] depend on the whole
    source and on inputs[:, :t + 1].

    options   those of `hidden`
    """
    y, cache = hidden(params, source, inputs, config, **options)
    logits = products.forward(y.reshape(-1, config.d_model), cache.decoder.head)
    return logits.reshape(*y.shape[:2], config.target_vocabulary), cache


def hidden(
    params: Tree,
    source: ArrayBT,
    inputs: ArrayBT,
    config: Config,
    *,
    source_valid: Annotated[np.ndarray, "B, S"] | None = None,
    valid: ArrayBT | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[ArrayBTD, Cache]:
    """`forward` without the head: -> (y³ (B, T, D), cache).

    source_valid   False at padding of the source, which has to come last; None: there is none
    valid          the same of the inputs
    training       whether routers behave as in training; None: if there is an rng
    rng            for dropout and for the noise of the routers

    Raises InputError for token numbers outside of the vocabularies, padding before tokens,
    parameters that do not fit, and where the decoder's router is not causal.
    """
    check(config)
    training, rng = contract.check_training(training, rng)
    both = {"training": training, "rng": rng}
    memory, encoder = translation_encoder.forward(
        params["encoder"], source, config, valid=source_valid, **both
    )
    keys = attentive_lstm.keys_of(params["decoder"]["attentive"], memory, encoder.valid)
    y, decoder = translation_decoder.forward(
        params["decoder"], inputs, keys, config, valid=valid, **both
    )
    return y, Cache(encoder, decoder, valid)


def backward(
    dlogits: ArrayBTV, cache: Cache, added: tuple[BalanceLoss | None, ...] = (None, None)
) -> Tree:
    """dlogits (B, T, V) -> the gradients of all parameters, with their structure.

    added   the load-balancing losses of the mixtures in encoder and decoder
    """
    y, head = cache.decoder.x, cache.decoder.head
    dlogits = checks.array("dlogits", dlogits, (*y.shape[:2], head.shape[1]), finite=False)
    rows = dlogits.reshape(-1, head.shape[1])
    dhead = products.weight_gradient(y.reshape(-1, y.shape[2]), rows)
    dy = products.input_gradient(rows, head).reshape(y.shape)
    return hidden_backward(dy, {"w": dhead}, cache, added)


def hidden_backward(
    dy: ArrayBTD, dhead: Tree, cache: Cache, added: tuple[BalanceLoss | None, ...] = (None, None)
) -> Tree:
    """dy (B, T, D), the gradients of the head -> the gradients of all parameters."""
    dmemory, decoder = translation_decoder.backward(dy, cache.decoder, added[1])
    encoder = translation_encoder.backward(dmemory, cache.encoder, added[0])
    return {"encoder": encoder, "decoder": {**decoder, "head": dhead}}


class Loss(NamedTuple):
    """What `loss_and_grads` measures. The gradients are those of task + Σ balance."""

    task: float  # mean of −log p(target), nats per valid target; perplexity is of this alone
    balance: tuple[float, ...]  # of encoder and decoder: Σ coefficient · loss
    tokens: int  # number of valid targets
    routings: tuple[Routing, ...]  # of encoder and decoder
    terms: tuple[dict[str, float], ...]  # of both: each loss by its name, without coefficient


def loss_and_grads(
    params: Tree,
    source: ArrayBT,
    targets: ArrayBT,
    config: Config,
    *,
    start: int,
    losses: tuple[Losses, Losses] | None = None,
    source_valid: Annotated[np.ndarray, "B, S"] | None = None,
    ignore: int = -1,
    smoothing: float = 0.0,
    rng: Rng | None = None,
) -> tuple[Loss, Tree]:
    """One step of training by teacher forcing: source (B, S), targets (B, T) -> (Loss, gradients).

    start       the token before the first target
    losses      pairs of a coefficient and a loss of moe_np.layers.balance, for encoder and decoder;
                None: importance and, of a noisy gate, load with .01 each
    targets     with an end token; padding, which comes last, is `ignore`
    smoothing   of labels, as in `cross_entropy.forward`
    """
    check(config)
    of_both = losses or tuple(map(_losses_of, (config.router, config.decoder_router)))
    targets = checks.array("targets", targets, (len(source), "T"), kind="i")
    inputs = shift_right(targets, start, ignore=ignore)
    options = {"source_valid": source_valid, "valid": targets != ignore, "rng": rng}
    y, cache = hidden(params, source, inputs, config, training=True, **options)
    task, head = cross_entropy.head_forward(
        params["decoder"]["head"],
        y.reshape(-1, config.d_model),
        targets.ravel(),
        ignore=ignore,
        smoothing=smoothing,
    )
    dy, dhead = cross_entropy.head_backward(1.0, head)

    mixtures = (cache.encoder.mixture.mixture, cache.decoder.mixture.mixture)
    masks = (cache.encoder.valid, cache.valid)
    measured = [
        recurrent_blocks.balance_losses(*parts)
        for parts in zip(of_both, mixtures, masks, strict=True)
    ]
    added = tuple(total for total, _ in measured)
    grads = hidden_backward(dy.reshape(y.shape), dhead, cache, added)
    values = tuple(total.value for total in added)
    routings = tuple(mixture.routing for mixture in mixtures)
    return Loss(task, values, head.n_valid, routings, tuple(terms for _, terms in measured)), grads


def _losses_of(router):
    """Those of the paper, as far as the router has them: the load loss is of a noisy gate."""
    return PAPER_LOSSES if router == "noisy_top_k" else PAPER_LOSSES[:1]
