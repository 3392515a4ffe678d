"""A rank under MPI: the verdict before each exchange, by a communicator that is none; and ranks
under a real MPI, where it is installed.
"""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.parallel import mpi
from moe_np.parallel.exchanges import FAILED, Gather, RankError, Send, describe


class OtherRanksAlike:
    """A communicator whose other ranks say what this rank says, unless `headers` has another."""

    def __init__(self, ranks, headers=(), said=()):
        self.rank = 0
        self.size = ranks
        self.headers = dict(headers)
        self.said = dict(said)

    def Allgather(self, header, table):
        for rank in range(self.size):
            table[rank] = self.headers.get(rank, header)

    def allgather(self, value):
        return [self.said.get(rank, value) for rank in range(self.size)]


def send(rows, counts, expected=None):
    expected = counts if expected is None else expected
    return (yield Send(rows, np.array(counts), np.array(expected), "dispatch"))


def test_more_rows_than_mpi_can_count_end_all_ranks():
    """2³¹ rows to one rank, or before the rows of another one; no memory is used."""
    for counts in ([0, 2**31], [2**31 - 1, 1, 5]):
        rows = np.broadcast_to(np.zeros((1, 3)), (sum(counts), 3))
        wanted = "rank 0: dispatch: rows to send: wanted at most 2147483647 rows per rank"
        with pytest.raises(RankError, match=wanted) as error:
            mpi.run(send(rows, counts), OtherRanksAlike(len(counts)))
        assert isinstance(error.value.__cause__, InputError)
    with pytest.raises(RankError, match="rank 0: dispatch: rows that come: wanted at most"):
        mpi.run(send(np.zeros((0, 3)), [0, 0], [0, 2**31]), OtherRanksAlike(2))


@pytest.mark.parametrize("counts", [[1, 2, 3], [3, -1], [9, 9]])
def test_counts_that_do_not_fit_end_all_ranks(counts):
    with pytest.raises(RankError, match="rank 0: "):
        mpi.run(send(np.zeros((2, 3)), counts), OtherRanksAlike(2))


def test_a_failed_rank_ends_the_others_with_its_error():
    failed = np.full(5, FAILED)
    others = OtherRanksAlike(2, {1: failed}, {1: (None, (1, "x: wanted 64, got 63"))})
    with pytest.raises(RankError, match=r"^rank 1: x: wanted 64, got 63$") as error:
        mpi.run(send(np.zeros((2, 3)), [1, 1]), others)
    assert error.value.rank == 1
    assert error.value.__cause__ is None


def test_another_exchange_and_another_number_of_rows_are_told():
    said = describe(Gather(np.zeros(2), "router w"))
    others = OtherRanksAlike(3, {2: np.arange(7)}, {2: (said, None)})
    with pytest.raises(RankError, match=r"rank 2: wanted .*'dispatch'.*, got .*'router w'"):
        mpi.run(send(np.zeros((3, 3)), [1, 1, 1]), others)
    with pytest.raises(RankError, match="rank 1: dispatch: rank 0 wanted 0 rows of it, got 1"):
        mpi.run(send(np.zeros((2, 3)), [1, 1], [1, 0]), OtherRanksAlike(2))


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), ZeroDivisionError("by 0")])
def test_every_kind_of_end_is_an_error_that_all_see(error):
    def rank():
        yield from send(np.zeros((0, 3)), [0, 0])
        raise error

    with pytest.raises(RankError, match="rank 0: ") as raised:
        mpi.run(rank(), OtherRanksWithoutRows(2))
    assert raised.value.__cause__ is error


class OtherRanksWithoutRows(OtherRanksAlike):
    def Alltoallv(self, *arguments):
        """No rank has rows."""


@pytest.fixture(autouse=True)
def bytes_of_mpi(monkeypatch, request):
    """The datatype of rows, without MPI."""

    class Rows:
        def Create_contiguous(self, size):
            return self

        def Commit(self):
            return self

        def Free(self):
            pass

    class Library:
        BYTE = Rows()

    if "mpi" not in request.keywords:
        monkeypatch.setattr(mpi, "library", Library)


def test_bytes_that_leave_a_rank():
    exchange = Send(np.zeros((6, 4), np.float32), np.array([1, 2, 3]), np.zeros(3, int), "dispatch")
    assert mpi.bytes_sent(exchange, 1, 3) == 4 * 4 * 4
    assert mpi.bytes_sent(Gather(np.zeros(5), "w"), 0, 4) == 3 * 40
