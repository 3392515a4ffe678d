"""Generation: a decoder continues a text, token by token, with keys and values kept.

    logits, state = generation.prefill(params, ids, config)        the prompt, at once or in chunks
    ids = generation.sample(logits, rng, temperature=0.8, top_k=40)
    logits, state = generation.step(params, ids, state, config)    one token more, and so on

`generate` does all of it, and yields each token as soon as it is drawn:

    for token in generation.generate(params, prompt, config, tokens=100, rng=rng):
        print(token.ids)

A step computes one position: the keys and values of those before are kept (`KeyValues`; where a
sliding window reads the last ones only, of two windows), and the logits are those of the whole
pass, to rounding. So a router that decides by what else is in the batch is refused: an expert
capacity would drop other tokens in the step than in the pass.

    p = softmax(logits / temperature)     over the top_k largest, then the smallest set of the most
                                          probable tokens that has top_p of what is left

The temperature comes first; the set has the token that crosses top_p; among equal logits the lower
token comes first; temperature 0 is the arg-max (errata 34). Top-p (nucleus) sampling: Holtzman et
al. 2019, arXiv 1904.09751, eq. 2.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import Rng
from moe_np.layers import key_values, projections
from moe_np.layers.key_values import KeyValues
from moe_np.models import decoder, decoder_config, decoder_step
from moe_np.models.decoder import Config
from moe_np.routing.contract import Routing

ArrayB = Annotated[np.ndarray, "B"]
ArrayBT = Annotated[np.ndarray, "B, T"]
ArrayBV = Annotated[np.ndarray, "B, V"]


class State(NamedTuple):
    """Where generation stands. `step` fills `kv` further IN PLACE."""

    kv: list[KeyValues]  # one per layer
    valid: Annotated[np.ndarray, "B, S"] | None  # False at padding before a shorter prompt
    routings: tuple[Routing, ...]  # by layer, of the tokens computed last


class Token(NamedTuple):
    """One token of each sequence, as `generate` yields it."""

    ids: ArrayB
    probability: ArrayB  # of the token under the distribution from which it was drawn
    routings: tuple[Routing, ...] | None  # of these tokens by layer; None unless asked for


def prefill(
    params: dict[str, Any],
    ids: ArrayBT,
    config: Config,
    *,
    room: int | None = None,
    chunk: int | None = None,
    valid: ArrayBT | None = None,
) -> tuple[ArrayBV, State]:
    """Read the prompt, ids (B, T): -> the logits (B, V) of the token after it, and the State.

    room    positions to make room for, the prompt included; None: config.context
    chunk   positions to compute at once, to save memory; None: all. The result is the same
    valid   (B, T), False at padding, which stands before a shorter prompt

    Raises InputError for an empty prompt, one longer than room, a room larger than config.context,
    padding at the last position, and a router that decides by what else is in the batch.
    """
    check_router(config)
    ids = checks.array("ids", ids, ("B", "T"), kind="i")
    B, T = ids.shape
    room = config.context if room is None else checks.integer("room", room, maximum=config.context)
    if not 1 <= T <= room or not B:
        wanted = f"a prompt of 1 to {room} tokens, for which there is room"
        raise InputError(f"ids: wanted {wanted}, got {T if B else 'no sequence'}")
    if valid is not None:
        valid = checks.mask("valid", valid, ids.shape)
        if not valid[:, -1].all():
            raise InputError("valid: wanted padding before the prompt, got padding at its end")
    length = T if chunk is None else checks.size("chunk", chunk)
    dtype = params["embed"]["w"].dtype
    shape = (B, config.kv_heads, room, config.d_head)
    windows = [decoder_config.window_of(config, layer) for layer in range(config.layers)]
    kv = [key_values.empty(*shape, window=window, prompt=T, dtype=dtype) for window in windows]
    state = State(kv, valid, ())
    logits = np.zeros((B, 0), dtype)
    for start in range(0, T, length):
        logits, state = _advance(params, ids[:, start : start + length], state, config)
    return logits, state


def step(
    params: dict[str, Any],
    ids: ArrayB,
    state: State,
    config: Config,
    *,
    blocks: Sequence[Any] | None = None,
) -> tuple[ArrayBV, State]:
    """One token ids (B,) per sequence: -> the logits (B, V) of the token after it, and the State.

    blocks   `decoder_step.weights(params, config)`, which spares many steps to look for it

    Raises InputError where there is no room left.
    """
    ids = checks.array("ids", ids, ("B",), kind="i")
    if state.valid is not None:
        grown = np.concatenate([state.valid, np.ones((len(ids), 1), bool)], axis=1)
        state = state._replace(valid=grown)
    return _advance(params, ids[:, None], state, config, blocks)


def _advance(params, ids, state, config, blocks=None):
    """Compute the positions of ids (B, T) behind those that are kept."""
    end = state.kv[0].length + ids.shape[1]
    valid = None if state.valid is None else state.valid[:, :end]
    if ids.shape[1] == 1 and end > 1:  # behind a prompt, whose pass has checked everything
        logits, routings = decoder_step.forward(
            params, ids[:, 0], config, state.kv, valid=valid, blocks=blocks
        )
        return logits, state._replace(routings=routings)
    x, cache = decoder.hidden(params, ids, config, valid=valid, training=False, kv=state.kv)
    routings = tuple(block.mixture.routing for block in cache.blocks)
    logits = projections.rows(x[:, -1], cache.head, transposed=cache.tied)
    return logits, state._replace(routings=routings)


def check_router(config: Config) -> None:
    """Refuse what the pass and the steps would do differently: a capacity. Raises InputError."""
    decoder.check(config)
    limit = config.options.get("capacity_factor")
    if config.experts > 1 and limit is not None:
        raise InputError(
            f"config.options: wanted no capacity_factor in generation, got {limit}: an expert with "
            "a capacity drops tokens by what else is in the batch, so a step would drop others "
            "than the whole pass"
        )


# --- sampling -------------------------------------------------------------------------------------


def probabilities(
    logits: ArrayBV,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> ArrayBV:
    """The distribution (B, V), float64, from which `sample` draws; 0 for what is cut off.

    temperature   0: all on the largest logit
    top_k         keep so many of the largest logits; None: all
    top_p         keep the fewest of the most probable whose sum is at least top_p; None: all

    Raises InputError for values out of their bounds, and for logits that are not finite.
    """
    logits = checks.array("logits", logits, ("B", "V")).astype(np.float64)
    temperature = checks.number("temperature", temperature, minimum=0)
    V = logits.shape[1]
    k = V if top_k is None else min(checks.integer("top_k", top_k), V)
    share = 1.0 if top_p is None else checks.number("top_p", top_p, greater_than=0, maximum=1)
    if temperature == 0:
        return (np.arange(V) == logits.argmax(axis=1)[:, None]).astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)  # a small temperature cannot make ∞ − ∞
    with np.errstate(over="ignore"):
        logits /= temperature
    if k < V:
        logits[~_largest(logits, k)] = -np.inf
    p = numerics.softmax(logits)
    return _nucleus(p, share) if share < 1 else p


def _largest(logits, k):
    """Mask (B, V) of the k largest of each row, without sorting it; the lower token wins a tie."""
    least = np.partition(logits, -k, axis=1)[:, -k, None]
    larger = logits > least
    equal = logits == least
    return larger | (equal & (np.cumsum(equal, axis=1) <= k - larger.sum(axis=1, keepdims=True)))


def _nucleus(p, share):
    """The fewest of the most probable tokens whose sum is at least `share`."""
    order = np.argsort(-p, axis=1, kind="stable")
    falling = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(falling, axis=1) - falling  # the sum before a token: it crosses, and is kept
    falling[before >= share] = 0
    falling /= falling.sum(axis=1, keepdims=True)
    out = np.empty_like(p)
    np.put_along_axis(out, order, falling, axis=1)
    return out


def sample(
    logits: ArrayBV,
    rng: Rng | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> ArrayB:
    """Draw a token per sequence from `probabilities`: logits (B, V) -> ids (B,).

    rng   not needed at temperature 0
    """
    p = probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    return draw(p, None if temperature == 0 else rng)


def draw(p: ArrayBV, rng: Rng | None) -> ArrayB:
    """A token per row of the probabilities p (B, V); without a generator the most probable."""
    if rng is None:
        if (np.count_nonzero(p, axis=1) > 1).any():
            raise InputError("rng: wanted a numpy.random.Generator to draw with, got None")
        return p.argmax(axis=1)
    checks.generator("rng", rng)
    total = np.cumsum(p, axis=1)
    # 1 − u is in (0, 1]: a token of probability 0 is never drawn, and there always is one
    return (total >= (1 - rng.random((len(p), 1))) * total[:, -1:]).argmax(axis=1)


def generate(
    params: dict[str, Any],
    ids: ArrayBT,
    config: Config,
    *,
    tokens: int,
    rng: Rng | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    routing: bool = False,
    valid: ArrayBT | None = None,
) -> Iterator[Token]:
    """Continue the prompts ids (B, T) by up to `tokens` tokens each; yields Token after Token.

    stop      tokens that end a sequence. The iteration ends with the last sequence; one that ended
              before repeats its last token
    routing   whether tokens come with the routing that they had themselves. A token is then yielded
              after its step and not before
    valid     as in `prefill`

    The arguments are checked at once, not at the first token. Raises InputError where the prompt
    and the tokens are more than config.context.
    """
    logits, state = begin(params, ids, config, tokens=tokens, valid=valid)
    cut: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    options = {"tokens": tokens, "rng": rng, "stop": stop, "routing": routing, **cut}
    return continuation(stepper(params, config), logits, state, **options)


def begin(
    params: dict[str, Any],
    ids: ArrayBT,
    config: Config,
    *,
    tokens: int,
    valid: ArrayBT | None = None,
) -> tuple[ArrayBV, State]:
    """`prefill` with room for so many tokens more. Raises InputError as `generate` does."""
    ids = checks.array("ids", ids, ("B", "T"), kind="i")
    tokens = checks.integer("tokens", tokens, minimum=0)
    room = ids.shape[1] + tokens
    if room > config.context:
        wanted = f"at most the {max(config.context - ids.shape[1], 0)} that the context leaves"
        raise InputError(f"tokens: wanted {wanted} after a prompt of {ids.shape[1]}, got {tokens}")
    return prefill(params, ids, config, room=max(room, 1), valid=valid)


def stepper(
    params: dict[str, Any], config: Config
) -> Callable[[ArrayB, State], tuple[ArrayBV, State]]:
    """`step` of one model, as `continuation` takes it."""
    blocks = decoder_step.weights(params, config)
    return lambda ids, state: step(params, ids, state, config, blocks=blocks)


def continuation(
    advance: Callable[[ArrayB, Any], tuple[ArrayBV, Any]],
    logits: ArrayBV,
    state: Any,
    *,
    tokens: int,
    rng: Rng | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    routing: bool = False,
) -> Iterator[Token]:
    """`generate` of any model, from the logits (B, V) of the first token and the state behind it.

    advance   one step, (ids (B,), state) -> (logits (B, V), state); the state has `routings`

    The other arguments are those of `generate`.
    """
    cut = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    probabilities(logits, **cut)
    if temperature != 0 and rng is None:
        raise InputError("rng: wanted a numpy.random.Generator to draw with, got None")

    settings = _Settings(tokens, cut, None if temperature == 0 else rng, tuple(stop), routing)
    return _tokens(advance, logits, state, settings)


class _Settings(NamedTuple):
    tokens: int
    cut: dict[str, Any]
    rng: Rng | None
    stop: tuple[int, ...]
    routing: bool


def _tokens(advance, logits, state, settings):
    ended = np.zeros(len(logits), bool)
    ids = np.zeros(len(logits), np.int64)
    for number in range(1, settings.tokens + 1):
        ids, probability = _next(logits, settings, ended, ids)
        token = Token(ids, probability, None)
        ended = ended | np.isin(ids, settings.stop) if settings.stop else ended
        last = number == settings.tokens or bool(ended.all())
        if not settings.routing:
            yield token
        if settings.routing or not last:
            logits, state = advance(ids, state)
        if settings.routing:
            yield token._replace(routings=state.routings)
        if last:
            return


def _next(logits, settings, ended, before):
    """The next tokens and their probabilities; a sequence that ended repeats the token before."""
    if settings.rng is None:  # temperature 0: the largest logit has all the probability
        drawn = checks.array("logits", logits, ("B", "V")).argmax(axis=1)
        ids = np.where(ended, before, drawn)
        return ids, (ids == drawn).astype(np.float64)
    p = probabilities(logits, **settings.cut)
    ids = np.where(ended, before, draw(p, settings.rng))
    return ids, p[np.arange(len(p)), ids]
