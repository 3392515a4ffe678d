"""A text that a model continues, piece by piece, with the experts of every token.

    for piece in continue_text(model, tokeniser, "And God said", tokens=50, rng=rng):
        print(piece.text, end="")

A decoder keeps keys and values (`moe_np.models.generation`), the LSTM its states; each token costs
the same. An encoder-decoder reads the prompt, and its decoder writes what follows. `piece.experts`
has a row per layer with a router (of the encoder for the prompt, then of the decoder): the experts
of the token that ended the piece, the largest weight first.
"""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayN, Rng
from moe_np.data.text import entrance
from moe_np.language.model_files import Model
from moe_np.models import (
    decoder,
    encoder_decoder,
    encoder_decoder_generation,
    generation,
    lstm_moe,
)
from moe_np.routing.contract import Routing

Experts = tuple[tuple[int, ...], ...]  # of a token: per layer with a router, by falling weight


class Piece(NamedTuple):
    """What a token adds to the text."""

    text: str  # empty while a character lacks bytes
    experts: Experts
    probability: float  # of the token; 1 for a token of the prompt


class Ends(NamedTuple):
    """What a Hugging Face folder says of the beginning and the end of a text."""

    first: int | None  # the token that stands before a prompt
    stop: tuple[int, ...]  # the tokens that end a text


NO_ENDS = Ends(None, ())


def ends(folder: str | os.PathLike) -> Ends:
    """The tokens before a prompt and after a text. A folder without such settings has none."""
    facts: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = pathlib.Path(folder) / name
        if path.exists():
            try:
                facts |= json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, TypeError, OSError) as error:
                raise InputError(f"{path}: wanted JSON, got {error}") from None
    stop = facts.get("eos_token_id")
    stop = stop if isinstance(stop, list) else [] if stop is None else [stop]
    first = facts.get("bos_token_id") if facts.get("add_bos_token") else None
    for number in stop:
        checks.integer(f"{folder}: eos_token_id", number, minimum=0)
    if first is not None:
        checks.integer(f"{folder}: bos_token_id", first, minimum=0)
    return Ends(first, tuple(stop))


def continue_text(
    model: Model,
    tokeniser: Any,
    prompt: str,
    *,
    tokens: int = 100,
    rng: Rng | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    ends: Ends = NO_ENDS,
) -> Iterator[Piece]:
    """The pieces of the prompt, and then those of up to `tokens` tokens more.

    temperature, top_k, top_p   as in `generation.probabilities`; 0 is the most probable token
    ends                        the token before the prompt, and those that end the text

    The arguments are checked at once. Raises InputError for an empty prompt, for one that is longer
    than the model's context with the tokens, and for a model that cannot continue a text.
    """
    ids = tokeniser.encode(entrance.text("prompt", prompt))
    if not len(ids):
        raise InputError("prompt: wanted some text to continue, got none")
    if ends.first is not None:
        ids = np.concatenate([[ends.first], ids])
    context = getattr(model.config, "context", len(ids))
    if len(ids) > context:
        wanted = f"at most the {context} tokens of the model's context"
        raise InputError(f"prompt: wanted {wanted}, got {len(ids)}")
    if tokeniser.size > model.config.vocabulary:
        raise InputError(
            f"tokeniser: wanted at most the {model.config.vocabulary} tokens of the model, "
            f"got {tokeniser.size}"
        )
    cut = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    if temperature != 0 and rng is None:
        raise InputError("rng: wanted a numpy.random.Generator to draw with, got None")
    tokens = checks.integer("tokens", tokens, minimum=0)
    if model.module is decoder:
        drawn = _of_decoder(model, ids, tokens, rng, cut, ends.stop)
    elif model.module is lstm_moe:
        drawn = _of_lstm(model, ids, tokens, rng, cut, ends.stop)
    elif model.module is encoder_decoder:
        drawn = _of_encoder_decoder(model, ids, tokens, rng, cut, ends.stop)
    else:
        name = model.module.__name__.rpartition(".")[2]
        raise InputError(f"folder: wanted a model that continues a text, got {name}")
    return _pieces(tokeniser, drawn)


class _Drawn(NamedTuple):
    """A token with what `Piece` says of it."""

    number: int
    experts: Experts
    probability: float


def _pieces(tokeniser, drawn):
    """The tokens as pieces of text. The last piece has what an unfinished character left."""
    last = None

    def numbers():
        nonlocal last
        for last in drawn:
            yield last.number

    for text in tokeniser.stream(numbers()):
        assert last is not None  # the stream gives no text before a token
        yield Piece(text, last.experts, last.probability)


def _of_decoder(model, ids, tokens, rng, cut, stop):
    logits, state = generation.begin(model.params, ids[None], model.config, tokens=tokens)
    drawn = generation.continuation(
        generation.stepper(model.params, model.config),
        logits,
        state,
        tokens=tokens,
        rng=rng,
        **cut,
        stop=stop,
        routing=True,
    )
    return _with_prompt(ids, state.routings, drawn)


def _with_prompt(ids, routings, drawn):
    """The tokens of the prompt with their routings, and then those that are drawn."""
    yield from _of_prompt(ids, routings)
    for token in drawn:
        (experts,) = experts_of(token.routings or (), 1)
        yield _Drawn(int(token.ids[0]), experts, float(token.probability[0]))


def _of_lstm(model, ids, tokens, rng, cut, stop):
    logits, cache = lstm_moe.forward(model.params, ids[None], model.config)
    generation.probabilities(logits[:, -1], **cut)  # checks the options

    def everything(logits, cache):
        yield from _of_prompt(ids, (cache.mixture.mixture.routing,))
        for _ in range(tokens):
            p = generation.probabilities(logits[:, -1], **cut)
            drawn = generation.draw(p, None if cut["temperature"] == 0 else rng)
            logits, cache = lstm_moe.forward(
                model.params, drawn[:, None], model.config, state=cache.state
            )
            (experts,) = experts_of((cache.mixture.mixture.routing,), 1)
            yield _Drawn(int(drawn[0]), experts, float(p[0, drawn[0]]))
            if drawn[0] in stop:
                return

    return everything(logits, cache)


def _of_encoder_decoder(model, ids, tokens, rng, cut, stop):
    _, cache = encoder_decoder.encode(model.params, ids[None], model.config)
    drawn = encoder_decoder_generation.generate(
        model.params,
        ids[None],
        model.config,
        tokens=tokens,
        rng=rng,
        **cut,
        stop=stop,
        routing=True,
    )

    routings = tuple(block.mixture.mixture.routing for block in cache.blocks)
    return _with_prompt(ids, routings, drawn)


def _of_prompt(ids, routings):
    for number, experts in zip(ids, experts_of(routings, len(ids)), strict=True):
        yield _Drawn(int(number), experts, 1.0)


def experts_of(routings: tuple[Routing, ...], n_tokens: int) -> list[Experts]:
    """The experts of each token: per layer with a router, by falling weight."""
    routings = tuple(routing for routing in routings if routing.demand.shape[1] > 1)
    layers = [_by_weight(routing, n_tokens) for routing in routings]
    return [tuple(layer[n] for layer in layers) for n in range(n_tokens)]


def _by_weight(routing, n_tokens):
    order: ArrayN = np.argsort(-routing.weight, kind="stable")
    chosen: list[list[int]] = [[] for _ in range(n_tokens)]
    for token, expert in zip(routing.token[order], routing.expert[order], strict=True):
        chosen[token].append(int(expert))
    return [tuple(experts) for experts in chosen]
