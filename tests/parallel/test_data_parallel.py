"""Data parallelism of a whole model: losses and gradients of pieces of any size, on any ranks."""

from typing import NamedTuple

import numpy as np
import pytest

from moe_np.parallel import data_parallel, in_process
from moe_np.parallel.decoder_mixture import Piece
from moe_np.parallel.exchanges import shares
from moe_np.routing.contract import Routing


class Losses(NamedTuple):
    task: float
    balance: tuple[float, ...]
    tokens: int
    routings: tuple


def gradients_of(params, piece):
    """The mean of w·x over the tokens, whose gradient is the mean of x; a balance loss of each."""
    x = piece.targets.astype(float)
    n = len(x)
    chosen = np.eye(2)[np.arange(n) % 2]
    routing = Routing(np.arange(n), np.arange(n) % 2, np.ones(n), None, chosen, chosen > 0)
    losses = Losses(float((x * params["a"]["w"]).mean()) if n else 0.0, (n * 1.0,), n, (routing,))
    return losses, {"a": {"w": np.array([x.mean()]) if n else np.zeros(1)}}


def on_ranks(ranks, sizes=(3, 1, 5, 0, 2)):
    x = np.arange(1, sum(sizes) + 1) ** 2
    parts = np.split(x, np.cumsum(sizes)[:-1])
    pieces = [Piece(part, part) for part in parts]
    bounds = shares(len(pieces), ranks)
    params = {"a": {"w": np.array([2.0])}}
    generators = [
        data_parallel.loss_and_grads(params, pieces[bounds[r] : bounds[r + 1]], gradients_of)
        for r in range(ranks)
    ]
    return x, in_process.run(generators)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_a_piece_counts_by_its_tokens(ranks):
    x, results = on_ranks(ranks)
    loss, grads = results[0]
    np.testing.assert_allclose(loss.task, 2 * x.mean())
    np.testing.assert_allclose(grads["a"]["w"], [x.mean()])
    np.testing.assert_allclose(loss.balance, [(9 + 1 + 25 + 4) / 11])
    assert loss.tokens == 11
    assert loss.load[0].tolist() == [7, 4]
    assert loss.dropped == (0.0,)
    for other, other_grads in results[1:]:
        assert other.task == loss.task
        assert other_grads["a"]["w"].tobytes() == grads["a"]["w"].tobytes()


def test_the_bits_do_not_depend_on_the_ranks():
    results = [on_ranks(ranks)[1][0] for ranks in (1, 2, 3, 5)]
    assert len({(loss.task, grads["a"]["w"].tobytes()) for loss, grads in results}) == 1
