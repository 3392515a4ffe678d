"""All ranks in this process, in lock step: each runs until its next exchange, then all exchange.

    results = in_process.run([step(rank) for rank in range(4)])

`exchanges` is the same, one exchange at a time: for a lesson, and for tests of what was sent.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Array
from moe_np.parallel.exchanges import (
    Exchange,
    Gather,
    RankError,
    Send,
    check_same,
    error_text,
)

Ranks = Sequence[Generator[Exchange, Any, Any]]


def run(ranks: Ranks) -> list[Any]:
    """Run all ranks to their end: -> what each returns.

    Raises RankError where a rank takes part in another exchange than the others, ends too early, or
    raises an error, which is its cause.
    """
    results: list[Any] = [None] * len(ranks)
    for _ in exchanges(ranks, results):
        pass
    return results


def exchanges(ranks: Ranks, results: list[Any]) -> Iterator[list[Exchange]]:
    """Yield each exchange, one record per rank, before it takes place. `results` gets what the
    ranks return.
    """
    if len(results) != len(ranks) or not ranks:
        raise InputError(f"results: wanted a place for each of {len(ranks)} ranks")
    answers: list[Any] = [None] * len(ranks)
    while True:
        requests: list[Exchange | None] = []
        for rank, generator in enumerate(ranks):
            requests.append(_next(rank, generator, answers[rank], results))
        if all(exchange is None for exchange in requests):
            return
        check_same(requests)
        present = [exchange for exchange in requests if exchange is not None]
        yield present
        answers = answer(present)


def _next(rank, generator, answer, results):
    try:
        return generator.send(answer)
    except StopIteration as stop:
        results[rank] = stop.value
        return None
    except RankError:  # it names a rank already
        raise
    except Exception as error:
        raise RankError(rank, error_text(error)) from error


def answer(requests: list[Exchange]) -> list[Any]:
    """What each rank is sent for an exchange. Raises RankError for counts that do not agree."""
    first = requests[0]
    if isinstance(first, Gather):
        arrays = [exchange.array for exchange in requests if isinstance(exchange, Gather)]
        return [list(arrays) for _ in requests]
    sent = [exchange for exchange in requests if isinstance(exchange, Send)]
    cut = [_cut(rank, exchange) for rank, exchange in enumerate(sent)]
    for receiver, exchange in enumerate(sent):
        for sender in range(len(sent)):
            wanted, got = exchange.expected[sender], len(cut[sender][receiver])
            if wanted != got:
                raise RankError(
                    sender,
                    f"{exchange.name}: rank {receiver} wanted {wanted} rows of it, got {got}",
                )
    return [
        np.concatenate([cut[sender][receiver] for sender in range(len(sent))])
        for receiver in range(len(sent))
    ]


def _cut(rank: int, exchange: Send) -> list[Array]:
    if exchange.counts.sum() != len(exchange.rows):
        wanted, got = exchange.counts.sum(), len(exchange.rows)
        raise RankError(rank, f"{exchange.name}: wanted {wanted} rows, as it counts, got {got}")
    return np.split(exchange.rows, np.cumsum(exchange.counts)[:-1])
