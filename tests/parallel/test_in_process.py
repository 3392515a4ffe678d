"""All ranks in one process: who gets what, and what is refused."""

import numpy as np
import pytest

from moe_np.parallel import in_process
from moe_np.parallel.exchanges import Gather, RankError, Send


def exchange(rank, ranks, counts, expected, rows=None):
    rows = np.array([[10 * rank + n] for n in range(sum(counts))]) if rows is None else rows
    return (yield Send(rows, np.array(counts), np.array(expected), "dispatch"))


def test_rows_go_to_their_ranks_in_the_order_of_the_senders():
    counts = [[1, 2, 0], [0, 1, 1], [2, 0, 3]]
    got = in_process.run(
        [exchange(r, 3, counts[r], [counts[s][r] for s in range(3)]) for r in range(3)]
    )
    assert [array.ravel().tolist() for array in got] == [[0, 20, 21], [1, 2, 10], [11, 22, 23, 24]]


def test_every_rank_gets_what_is_gathered():
    def rank(n):
        return (yield Gather(np.full(n, n), "sizes"))

    for got in in_process.run([rank(2), rank(0), rank(1)]):
        assert [array.tolist() for array in got] == [[2, 2], [], [1]]


def test_counts_that_do_not_agree_are_told_with_the_ranks():
    with pytest.raises(RankError, match="rank 1: dispatch: rank 0 wanted 3 rows of it, got 2"):
        in_process.run([exchange(0, 2, [0, 1], [0, 3]), exchange(1, 2, [2, 0], [1, 0])])
    rows = np.zeros((5, 1))
    with pytest.raises(RankError, match="rank 0: dispatch: wanted 1 rows, as it counts, got 5"):
        in_process.run(
            [exchange(0, 2, [0, 1], [0, 0], rows), exchange(1, 2, [0, 0], [1, 0], rows[:0])]
        )


def test_a_rank_that_ends_early_is_named():
    def silent():
        return 1
        yield

    with pytest.raises(RankError, match=r"rank 1: .*it has ended"):
        in_process.run(
            [exchange(0, 3, [0] * 3, [0] * 3), silent(), exchange(2, 3, [0] * 3, [0] * 3)]
        )


def test_results_need_a_place():
    with pytest.raises(ValueError, match="results: wanted a place for each of 1 ranks"):
        next(in_process.exchanges([exchange(0, 1, [0], [0])], []))
