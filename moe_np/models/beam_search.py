"""Beam search and greedy search for the translation model (Wu et al. 2016, arXiv 1609.08144,
section 7, without the coverage penalty).

    s(Y) = log P(Y | X) / lp(Y),     lp(Y) = ((5 + |Y|) / 6)^α                               (14)

|Y| counts the tokens and the end token. A beam of 1 is greedy search: the best token at every
position. All sentences of a batch are searched together, each with its own beam.

A router that counts a capacity, which depends on what else is in the batch, is refused: the
translation of a sentence would depend on its neighbours.
"""

import inspect
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayBT
from moe_np.layers import attentive_lstm, lstm, mixture_layer
from moe_np.models import translation, translation_decoder, translation_encoder
from moe_np.models.translation import Config

Tree = dict[str, Any]  # nested parameters


class Translation(NamedTuple):
    """A sentence of the target."""

    tokens: list[int]  # without the start and the end token
    log_probability: float  # nats, of the end token too
    score: float  # s(Y)
    ended: bool  # False: `longest` came before the end token


class Beam(NamedTuple):
    """The hypotheses of one step: K of each of the B sentences, row b·K + j is number j of b."""

    tokens: Annotated[np.ndarray, "B K, t"]
    total: Annotated[np.ndarray, "B, K"]  # log probabilities; −∞ marks a place that is not used
    state: translation_decoder.State | None


def translate(
    params: Tree,
    source: ArrayBT,
    config: Config,
    *,
    start: int,
    end: int,
    longest: int,
    beam: int = 1,
    length_penalty: float = 0.6,
    source_valid: ArrayBT | None = None,
) -> list[Translation]:
    """source (B, S) -> the best translation of each sentence that the search meets.

    start, end       the tokens before and after a sentence of the target
    longest          the largest number of tokens, the end token included
    beam             K, the number of hypotheses; 1: greedy
    length_penalty   α; 0 compares log probabilities, which prefers short sentences
    source_valid     False at padding, which has to come last

    A search of a sentence ends with K hypotheses that have ended. At a tie the lowest token wins.
    Raises InputError for a router of the decoder with a capacity.
    """
    translation.check(config)
    V = config.target_vocabulary
    start = checks.integer("start", start, minimum=0, maximum=V - 1)
    end = checks.integer("end", end, minimum=0, maximum=V - 1)
    longest = checks.integer("longest", longest)
    K = checks.integer("beam", beam)
    alpha = checks.number("length_penalty", length_penalty, minimum=0)
    _refuse_capacity(config)
    memory, encoder = translation_encoder.forward(
        params["encoder"], source, config, valid=source_valid
    )
    B = len(memory)
    row = np.repeat(np.arange(B), K)
    keys = attentive_lstm.keys_of(params["decoder"]["attentive"], memory[row], encoder.valid[row])
    total = np.full((B, K), -np.inf)
    total[:, 0] = 0  # at first all hypotheses of a sentence are the same
    hypotheses = Beam(np.full((B * K, 1), start), total, None)
    ended: list[list[Translation]] = [[] for _ in range(B)]
    for _ in range(longest):
        hypotheses = _step(params["decoder"], keys, config, hypotheses, end, alpha, ended)
        if not np.isfinite(hypotheses.total).any():
            break
    return [_best(ended[b], hypotheses, b, alpha) for b in range(B)]


def _step(params, keys, config, hypotheses, end, alpha, ended):
    """The next beam. Hypotheses that end are added to `ended`."""
    tokens, total, state = hypotheses
    B, K = total.shape
    y, cache = translation_decoder.forward(params, tokens[:, -1:], keys, config, state=state)
    log_p = numerics.log_softmax((y[:, 0] @ cache.head).astype(np.float64))
    V = log_p.shape[1]
    candidates = (total[:, :, None] + log_p.reshape(B, K, V)).reshape(B, K * V)
    # 2 K of them, because at most K of these are ends
    best = np.argsort(-candidates, axis=1, kind="stable")[:, : 2 * K]
    parent = np.zeros((B, K), np.int64)
    token = np.full((B, K), end)
    kept = np.full((B, K), -np.inf)
    for b in range(B):
        j = 0
        for rank, place in enumerate(best[b]):
            value = candidates[b, place]
            if value == -np.inf:
                break
            if place % V == end and rank < K:
                row = tokens[b * K + place // V, 1:].tolist()
                ended[b].append(_translation(row, value, alpha, True))
            elif place % V != end and j < K:
                parent[b, j], token[b, j] = divmod(place, V)
                kept[b, j] = value
                j += 1
        if len(ended[b]) >= K:
            kept[b] = -np.inf
    row = (np.arange(B)[:, None] * K + parent).ravel()
    state = translation_decoder.State(*(lstm.State(s.h[row], s.c[row]) for s in cache.state))
    return Beam(np.concatenate([tokens[row], token.reshape(-1, 1)], axis=1), kept, state)


def _translation(tokens, log_probability, alpha, ended):
    penalty = ((5 + len(tokens) + ended) / 6) ** alpha
    return Translation(tokens, float(log_probability), float(log_probability / penalty), ended)


def _best(ended, hypotheses, b, alpha):
    """The hypothesis with the best score; one that has not ended only where none has."""
    if not ended:
        K = hypotheses.total.shape[1]
        rows = hypotheses.tokens[b * K : (b + 1) * K, 1:].tolist()
        pairs = zip(rows, hypotheses.total[b], strict=True)
        ended = [_translation(row, value, alpha, False) for row, value in pairs]
    return max(ended, key=lambda translation: translation.score)


def _refuse_capacity(config):
    router = mixture_layer.causal_router(config.decoder_router)
    parameter = inspect.signature(router.route).parameters.get("capacity_factor")
    if config.experts > 1 and parameter is not None:
        default = None if parameter.default is parameter.empty else parameter.default
        factor = config.decoder_options.get("capacity_factor", default)
        if factor is not None:
            raise InputError(
                f"config.decoder_options: wanted a router without a capacity, got {factor} for "
                f"{config.decoder_router}: a translation would depend on the rest of the batch"
            )
