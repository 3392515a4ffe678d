"""Shares, counts, and ranks that do not take part in the same exchange."""

import numpy as np
import pytest

from moe_np.parallel.exchanges import Gather, RankError, Send, check_counts, check_same, shares


@pytest.mark.parametrize(("n", "ranks"), [(0, 3), (1, 1), (2, 3), (10, 3), (12, 4)])
def test_shares_are_contiguous_and_even(n, ranks):
    bounds = shares(n, ranks)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, n, ranks + 1)
    sizes = np.diff(bounds)
    assert sizes.min() >= n // ranks
    assert sizes.max() <= -(-n // ranks)


def test_more_rows_than_mpi_can_count_are_refused():
    check_counts("rows", np.array([2**31 - 1, 0]))
    with pytest.raises(
        ValueError, match="rows: wanted at most 2147483647 rows per rank, got 21474"
    ):
        check_counts("rows", np.array([0, 2**31]))


def test_the_rank_that_differs_from_most_is_named():
    send = Send(np.zeros((0, 2)), np.zeros(3, int), np.zeros(3, int), "dispatch")
    gather = Gather(np.zeros(2), "router w")
    check_same([send, send._replace(rows=np.ones((2, 2))), send])
    with pytest.raises(RankError, match=r"rank 1: .*'dispatch' .*got .*'router w'") as error:
        check_same([send, gather, send])
    assert error.value.rank == 1
    with pytest.raises(RankError, match=r"rank 2: .*got no exchange, it has ended"):
        check_same([send, send, None])
    with pytest.raises(RankError, match="rank 0"):
        check_same([send._replace(name="combine"), send, send])
