"""Continuous batching: requests join a running batch when they arrive, and leave it when they are
done (Orca, Yu et al. 2022, OSDI).

    served, log = batching.serve(params, config, requests, most=8)

Sequences of different lengths are computed in one batch. All rows end at the same position of a
common frame; a shorter sequence begins later, and the positions before it are masked:

    row 0     a a a a a a a a ?
    row 1     . . . b b b b b ?        joined later; its prompt was computed at these positions
    row 2     . . . . . . c c ?

Rotary attention depends on differences of positions alone, so where a sequence begins in the frame
does not matter. When the frame reaches the context, or a prompt is longer than the frame, all keys
are turned by one angle and move along it. So the tokens of a request are those that it has alone,
to rounding; each draws with its own generator.

A new prompt is computed alone, between two steps. Time is simulated: the clock advances by what
each computation took, and jumps over time in which there is nothing to do.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, Rng
from moe_np.layers import key_values, projections, rotary
from moe_np.layers.key_values import KeyValues
from moe_np.models import decoder, decoder_step, generation
from moe_np.models.decoder import Config
from moe_np.serving.requests import Request, Served

Clock = Callable[[], float]


class Log(NamedTuple):
    """What the batch did."""

    steps: int  # of the batch
    mean_batch: float  # sequences per step
    seconds: float  # on the simulated clock, from the first arrival to the last token
    tokens: int  # generated


@dataclass
class _Row:
    """A sequence in the batch."""

    number: int  # of its request
    request: Request
    rng: Rng
    ids: list[int]
    first: float  # when its first token was there


class Batch:
    """The sequences that are computed together: `add` one, `step` all, `remove` one.

    Keys and values have room for `most` sequences of config.context positions.
    """

    def __init__(self, params: Any, config: Config, most: int) -> None:
        generation.check_router(config)
        shape = (checks.size("most", most), config.kv_heads, config.context, config.d_head)
        dtype = params["embed"]["w"].dtype
        self._kv = [key_values.empty(*shape, dtype=dtype) for _ in range(config.layers)]
        self._params = params
        self._config = config
        self._blocks = decoder_step.weights(params, config)
        self._starts: list[int] = []
        self._end = 0  # the position after the last one of the frame

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, prompt: Array) -> Array:
        """Compute a prompt (T,), as the last row: -> the logits (V,) of the token after it."""
        T = len(prompt)
        row = len(self)
        if self._end < T:
            self._move(T - self._end)
        start = self._end - T
        kv = [KeyValues(k.keys[row : row + 1], k.values[row : row + 1], start) for k in self._kv]
        valid = (np.arange(self._end) >= start)[None]
        params, config = self._params, self._config
        x, cache = decoder.hidden(params, prompt[None], config, valid=valid, training=False, kv=kv)
        self._starts.append(start)
        return projections.rows(x[:, -1], cache.head, transposed=cache.tied)[0]

    def step(self, ids: Array) -> Array:
        """One token ids (B,) per row: -> the logits (B, V) of the tokens after them."""
        if self._end == self._config.context:
            self._move(-min(self._starts))
        n = len(self)
        kv = [KeyValues(k.keys[:n], k.values[:n], self._end) for k in self._kv]
        valid = np.arange(self._end + 1) >= np.array(self._starts)[:, None]
        logits, _ = decoder_step.forward(
            self._params, ids, self._config, kv, valid=valid, blocks=self._blocks
        )
        self._end += 1
        return logits

    def remove(self, row: int) -> None:
        """Take a sequence out; the last row takes its place."""
        last = len(self) - 1
        for kept in self._kv:
            kept.keys[row] = kept.keys[last]
            kept.values[row] = kept.values[last]
        self._starts[row] = self._starts[last]
        self._starts.pop()
        if not self._starts:
            self._end = 0

    def _move(self, by: int) -> None:
        """Move all sequences along the frame, and turn their keys by as many positions."""
        n = len(self)
        old = slice(max(0, -by), self._end)
        new = slice(max(0, by), self._end + by)
        if n:
            config, dtype = self._config, self._kv[0].keys.dtype
            turned = rotary.angles(np.array([by]), config.d_head, theta=config.theta, dtype=dtype)
            for kept in self._kv:
                keys = kept.keys[:n, :, old].transpose(0, 2, 1, 3)
                kept.keys[:n, :, new] = rotary.turn(keys, *turned).transpose(0, 2, 1, 3)
                kept.values[:n, :, new] = kept.values[:n, :, old].copy()
        self._starts = [start + by for start in self._starts]
        self._end += by


def serve(
    params: Any,
    config: Config,
    requests: Sequence[Request],
    *,
    most: int = 8,
    temperature: float = 1.0,
    clock: Clock = time.perf_counter,
) -> tuple[list[Served], Log]:
    """Serve the requests, at most `most` at a time, in the order of their arrival.

    temperature   of the draws; 0 is the arg-max
    clock         the seconds of which computations take; a test may count in another way

    Returns what came of each request, in the order given. Raises InputError for no request, and for
    one that is longer than the context.
    """
    _check(requests, config)
    order = sorted(range(len(requests)), key=lambda number: requests[number].arrival)
    waiting = order[::-1]
    batch = Batch(params, config, most)
    rows: list[_Row] = []
    served: dict[int, Served] = {}
    now = requests[order[0]].arrival
    batch_sizes = []

    while waiting or rows:
        if not rows:
            now = max(now, requests[waiting[-1]].arrival)
        while waiting and len(rows) < most and requests[waiting[-1]].arrival <= now:
            number = waiting.pop()
            begin = clock()
            row = _joined(batch, number, requests[number], temperature)
            now += clock() - begin
            row.first = now
            rows.append(row)
            _finish(batch, rows, served, now)
        if rows:
            begin = clock()
            logits = batch.step(np.array([row.ids[-1] for row in rows]))
            for row, scores in zip(rows, logits, strict=True):
                row.ids.append(_drawn(scores, row.rng, temperature))
            now += clock() - begin
            batch_sizes.append(len(rows))
            _finish(batch, rows, served, now)
    results = [served[number] for number in range(len(requests))]
    tokens = sum(len(result.ids) for result in results)
    mean_batch = float(np.mean(batch_sizes)) if batch_sizes else 0.0
    return results, Log(len(batch_sizes), mean_batch, now - requests[order[0]].arrival, tokens)


def _finish(batch, rows, served, now):
    """Take the sequences that have all of their tokens out of the batch."""
    for i in reversed(range(len(rows))):
        row = rows[i]
        if len(row.ids) == row.request.tokens:
            served[row.number] = Served(row.ids, row.request.arrival, row.first, now)
            batch.remove(i)
            rows[i] = rows[-1]
            rows.pop()


def _joined(batch, number, request, temperature):
    """The request as the last row of the batch, with its first token."""
    logits = batch.add(request.prompt)
    rng = np.random.default_rng(request.seed)
    ids = [_drawn(logits, rng, temperature)]
    return _Row(number, request, rng, ids, 0.0)


def _drawn(scores, rng, temperature):
    rng = None if temperature == 0 else rng
    return int(generation.sample(scores[None], rng, temperature=temperature)[0])


def _check(requests, config):
    if not requests:
        raise InputError("requests: wanted at least one, got none")
    checks.size("the tokens of a request", min(request.tokens for request in requests))
    for number, request in enumerate(requests):
        T = len(checks.array(f"requests[{number}].prompt", request.prompt, ("T",), kind="i"))
        if not 1 <= T <= config.context - request.tokens:
            wanted = f"a prompt of 1 to {config.context - request.tokens} tokens, for the context"
            raise InputError(f"requests[{number}]: wanted {wanted}, got {T}")
