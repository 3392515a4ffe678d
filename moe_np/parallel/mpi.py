"""A rank under MPI, the message passing interface: one process per rank, by mpi4py.

    result = mpi.run(step(mpi.world().rank))

Before each exchange every rank tells all others what it is about to do: which exchange, with how
many rows for each rank, or that it has failed (FAILED in place of a count). So all ranks come to
the same verdict. An error on one rank, an early end, and an exchange that a rank leaves out end all
ranks with the same RankError, which names the rank; nobody waits for a message that never comes.
What a rank cannot tell, because it is killed, its launcher tells (`moe_np.parallel.launch`).

A row is one MPI datatype, so that counts are rows and not numbers, whatever the width of a row.

This is the only file that imports mpi4py, at the first use.
"""

import time
import zlib
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array
from moe_np.parallel import progress
from moe_np.parallel.exchanges import (
    FAILED,
    Exchange,
    RankError,
    Send,
    check_counts,
    check_equal,
    describe,
    error_text,
)

ANY_NUMBER = -2  # in place of an expected count: whatever comes


class Timing(NamedTuple):
    """One exchange of one rank."""

    name: str
    compute: float  # seconds since the exchange before
    wait: float  # seconds until the last rank had come to it
    transfer: float  # seconds of the message itself
    bytes: int  # that left this rank for another one


def library() -> Any:
    """The module mpi4py.MPI. Raises InputError where mpi4py or its MPI is not there."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(f"MPI: {error}; pip install mpi4py mpich brings one") from None
    return MPI


def world(ranks: int | None = None) -> Any:
    """All ranks, as a communicator. Raises InputError where they are not as many as wanted."""
    communicator = library().COMM_WORLD
    if ranks is not None and communicator.size != ranks:
        raise InputError(
            f"MPI: wanted {ranks} ranks, got {communicator.size}: is the mpiexec that started "
            "them of another MPI than mpi4py uses?"
        )
    progress.note(communicator.rank)
    return communicator


def run(
    generator: Generator[Exchange, Any, Any],
    communicator: Any = None,
    *,
    clock: list[Timing] | None = None,
) -> Any:
    """Run this rank to its end: -> what it returns.

    communicator   of mpi4py; None: all ranks
    clock          gets a Timing per exchange

    Raises RankError, the same one on every rank, where a rank raises an error (its cause, on that
    rank), takes part in another exchange than the others, ends too early, or has more rows for a
    rank than MPI can count.
    """
    communicator = world() if communicator is None else communicator
    rank = communicator.rank
    progress.note(rank, waiting=False, ended=False)
    answer = None
    start = time.perf_counter()
    while True:
        exchange: Exchange | None = None
        result = error = None
        try:
            exchange = generator.send(answer)
        except StopIteration as stop:
            result = stop.value
        except BaseException as caught:  # also sys.exit, for which the others would wait for ever
            error = caught
        ready = time.perf_counter()
        name = "the end" if exchange is None else exchange.name
        progress.note(rank, name=name, waiting=True)
        counts = _agree(communicator, exchange, error)
        agreed = time.perf_counter()
        if exchange is None:
            progress.note(rank, waiting=False, ended=True)
            return result
        answer = _exchange(communicator, exchange, counts)
        progress.note(rank, waiting=False)
        now = time.perf_counter()
        if clock is not None:
            sent = bytes_sent(exchange, rank, communicator.size)
            clock.append(Timing(exchange.name, ready - start, agreed - ready, now - agreed, sent))
        start = now


def bytes_sent(exchange: Exchange, rank: int, ranks: int) -> int:
    """The bytes that leave this rank for other ranks."""
    if not isinstance(exchange, Send):
        return exchange.array.nbytes * (ranks - 1)
    return _row_bytes(exchange.rows) * int(exchange.counts.sum() - exchange.counts[rank])


# --- what the ranks agree on before an exchange ---------------------------------------------------


def _agree(communicator, exchange, error):
    """Raise RankError on all ranks unless all take part in the same exchange and their counts
    agree: -> (R, R) rows that each rank has for each.
    """
    ranks = communicator.size
    header = np.full(1 + 2 * ranks, FAILED, np.int64)
    if error is None:
        error = _fill(header, exchange, communicator.rank, ranks)
    table = np.empty((ranks, len(header)), np.int64)
    communicator.Allgather(header, table)
    codes = table[:, 0]
    counts = table[:, 1 : 1 + ranks]
    expected = table[:, 1 + ranks :]
    if (codes != codes[0]).any() or (codes == FAILED).any():
        _end(communicator, exchange, error)
    differ = (expected != counts.T) & (expected != ANY_NUMBER)
    for receiver, sender in np.argwhere(differ):
        message = (
            f"{exchange.name}: rank {receiver} wanted {expected[receiver, sender]} rows of it, "
            f"got {counts[sender, receiver]}"
        )
        progress.note(communicator.rank, ended=True)
        raise RankError(int(sender), message)
    return counts


def _fill(header, exchange, rank, ranks):
    """Write a rank's header: a code of the exchange, its counts, what it expects. Returns the
    error of an exchange that cannot be, which leaves FAILED in the header.
    """
    code = zlib.crc32(describe(exchange).encode())
    if exchange is None:
        header[:] = 0
    elif isinstance(exchange, Send):
        n_rows = exchange.rows.shape[0]
        try:
            checks.array("counts", exchange.counts, (ranks,), kind="i")
            checks.array("expected", exchange.expected, (ranks,), kind="i")
            check_counts(f"{exchange.name}: rows to send", exchange.counts)
            check_counts(f"{exchange.name}: rows that come", exchange.expected)
            if exchange.counts.sum() != n_rows or exchange.counts.min() < 0:
                wanted = f"rows as it counts, {exchange.counts.tolist()}"
                raise InputError(f"{exchange.name}: wanted {wanted}, got {n_rows}")
        except InputError as error:
            return error
        header[1:] = np.concatenate([exchange.counts, exchange.expected])
    else:  # all get the same, and learn here how much
        header[1 : 1 + ranks] = len(exchange.array)
        header[1 + ranks :] = ANY_NUMBER
    header[0] = code
    return None


def _end(communicator, exchange, error):
    """All ranks tell what they did, and all raise the same error."""
    described = None if error is not None else describe(exchange)
    rank = communicator.rank
    failure = None
    if isinstance(error, RankError):
        failure = (error.rank, str(error).partition(": ")[2])
    elif error is not None:
        failure = (rank, error_text(error))
    answers = communicator.allgather((described, failure))
    progress.note(rank, ended=True)
    failures = [failure for _, failure in answers if failure is not None]
    if failures:
        raise RankError(*failures[0]) from error
    check_equal([described for described, _ in answers])


# --- the exchanges themselves ---------------------------------------------------------------------


def _exchange(communicator, exchange, counts):
    """Alltoallv or Allgatherv, of rows. Counts and their starts are those of the receivers too."""
    sends = isinstance(exchange, Send)
    rank = communicator.rank
    rows = np.ascontiguousarray(exchange.rows if sends else exchange.array)
    expected = counts[:, rank]
    arrived = np.empty((int(expected.sum()), *rows.shape[1:]), rows.dtype)
    size = _row_bytes(rows)
    if size > 0:
        row = library().BYTE.Create_contiguous(size).Commit()
        to = [arrived, (expected, _starts(expected)), row]
        try:
            if sends:
                communicator.Alltoallv([rows, (counts[rank], _starts(counts[rank])), row], to)
            else:
                communicator.Allgatherv([rows, len(rows), row], to)
        finally:
            row.Free()
    return arrived if sends else np.split(arrived, np.cumsum(expected)[:-1])


def _row_bytes(rows: Array) -> int:
    return rows.dtype.itemsize * int(np.prod(rows.shape[1:]))


def _starts(counts):
    return np.concatenate([[0], np.cumsum(counts)[:-1]])
