"""Generation with an encoder-decoder: the source is read once, the targets follow token by token.

    logits, state = prefill(params, source, config)         the source, and the start token
    ids = generation.sample(logits, rng, temperature=0.8)
    logits, state = step(params, ids, state, config)        one token more, and so on

`generate` does all of it and yields each token as soon as it is drawn; temperature 0 is greedy
search. How tokens are drawn is in `moe_np.models.generation`.

A step computes one position of the decoder. The keys and values of the positions before are kept,
and so are those of the memory, which cross attention computes in the first step alone. The logits
are those of the whole pass, to rounding. So a capacity is refused in the decoder. The encoder runs
as in the whole pass, and may have one.
"""

from collections.abc import Collection, Iterator
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Rng
from moe_np.layers import key_values
from moe_np.models import encoder_decoder, generation
from moe_np.models.encoder_decoder_config import Config, Tree, check, router_of
from moe_np.models.encoder_decoder_stack import BlockKeyValues, Memory
from moe_np.models.generation import ArrayB, ArrayBV, Token
from moe_np.routing.contract import Routing

ArrayBS = Annotated[np.ndarray, "B, S"]


class State(NamedTuple):
    """Where generation stands. `step` fills `kv` further IN PLACE."""

    memory: Memory
    kv: list[BlockKeyValues]  # one per layer of the decoder
    routings: tuple[Routing, ...]  # by layer of the decoder, of the tokens computed last


def prefill(
    params: Tree,
    source: ArrayBS,
    config: Config,
    *,
    room: int | None = None,
    source_valid: ArrayBS | None = None,
) -> tuple[ArrayBV, State]:
    """Read the source (B, S) and the start token: -> the logits (B, V) of the first token, State.

    room           positions of the decoder to make room for, the start token included; None:
                   config.context
    source_valid   (B, S), False at padding

    Raises InputError for what `encoder_decoder.encode` refuses, a room larger than config.context,
    and a router of the decoder with a capacity.
    """
    check(config)
    _refuse_capacity(config)
    room = config.context if room is None else checks.integer("room", room, maximum=config.context)
    memory, _ = encoder_decoder.encode(params, source, config, source_valid=source_valid)
    B, S, _ = memory.x.shape

    def empty(positions):
        sizes = (B, config.heads, positions, config.d_head)
        return key_values.empty(*sizes, dtype=memory.x.dtype)

    kv = [BlockKeyValues(empty(room), empty(S)) for _ in range(config.decoder_layers)]
    return step(params, np.full(B, config.start), State(memory, kv, ()), config)


def step(params: Tree, ids: ArrayB, state: State, config: Config) -> tuple[ArrayBV, State]:
    """One token ids (B,) per sequence: -> the logits (B, V) of the token after it, and the State.

    Raises InputError where there is no room left.
    """
    ids = checks.array("ids", ids, (len(state.memory.x),), kind="i")
    x, cache = encoder_decoder.decode(
        params, ids[:, None], config, state.memory, training=False, kv=state.kv
    )
    routings = tuple(block.mixture.mixture.routing for block in cache.blocks)
    logits = x[:, -1] @ encoder_decoder.head_of(params, config)
    return logits, state._replace(routings=routings)


def generate(
    params: Tree,
    source: ArrayBS,
    config: Config,
    *,
    tokens: int,
    rng: Rng | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    routing: bool = False,
    source_valid: ArrayBS | None = None,
) -> Iterator[Token]:
    """The targets of source (B, S), up to `tokens` tokens each; yields Token after Token.

    stop      tokens that end a sequence, as the end token. The iteration ends with the last
              sequence; one that ended before repeats its last token
    routing   whether tokens come with the routing that they had themselves, in the decoder

    The other arguments are those of `generation.generate` and of `prefill`. Raises InputError where
    the tokens are more than config.context.
    """
    check(config)
    tokens = checks.integer("tokens", tokens, minimum=0, maximum=config.context - bool(routing))
    room = max(tokens + bool(routing), 1)
    logits, state = prefill(params, source, config, room=room, source_valid=source_valid)

    def advance(ids, state):
        return step(params, ids, state, config)

    return generation.continuation(
        advance,
        logits,
        state,
        tokens=tokens,
        rng=rng,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop=stop,
        routing=routing,
    )


def _refuse_capacity(config):
    """Refuse what the pass and the steps would do differently."""
    _, options, _ = router_of(config, "decoder")
    limit = options.get("capacity_factor")
    if config.experts > 1 and limit is not None:
        name = "options" if config.decoder_router is None else "decoder_options"
        raise InputError(
            f"config.{name}: wanted no capacity_factor for the decoder in generation, got {limit}: "
            "an expert with a capacity drops tokens by what else is in the batch, so a step would "
            "drop others than the whole pass"
        )
