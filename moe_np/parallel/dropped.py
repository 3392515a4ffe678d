"""What a capacity drops of the same tokens on more ranks, where each rank is a group.

With documents kept together, a rank has tokens of few kinds: its group overfills some experts and
leaves others empty, though the whole batch would be balanced.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayND, Options, Params, Rng
from moe_np.layers import balance
from moe_np.parallel.exchanges import shares


class Shares(NamedTuple):
    """What a number of ranks makes of the same tokens, each rank a group."""

    ranks: int
    dropped: float  # share of the assignments that found no place
    balance: float  # Switch's loss, the mean over ranks by their tokens


def dropped_shares(
    router: Any, params: Params, x: ArrayND, options: Options, ranks: Sequence[int]
) -> list[Shares]:
    """The dropped share and Switch's loss of the same tokens on each number of ranks."""
    rows = []
    for n in ranks:
        kept = wanted = 0
        loss = 0.0
        for part in np.split(x, shares(len(x), n)[1:-1]):
            routing, _ = router.route(params, part, **options)
            kept += len(routing.token)
            wanted += int(routing.demand.sum())
            loss += balance.switch(routing).value * len(part) / len(x)
        rows.append(Shares(n, 1 - kept / max(wanted, 1), loss))
    return rows


def documents(
    rng: Rng, *, tokens: int = 2048, length: int = 64, d_model: int = 32, topics: int = 8
) -> ArrayND:
    """Tokens (N, D) of documents one after the other. A document has a topic, to which its tokens
    are near; documents of a topic come together, as in a sorted data set.
    """
    checks.generator("rng", rng)
    centres = rng.normal(size=(topics, d_model))
    topic = np.sort(rng.integers(0, topics, -(-tokens // length)))
    return centres[np.repeat(topic, length)[:tokens]] + rng.normal(size=(tokens, d_model))
