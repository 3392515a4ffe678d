"""What ranks ask of each other, and how tokens and experts are divided among them.

**Order.** All results have the same bits for any number of ranks, and as in one process, by four
rules: tokens and experts are divided in contiguous shares, in the order of the ranks; an expert's
rows are in the order of (sender, the sender's order), which is the order of the tokens; outputs are
added expert by expert, in the order of the experts' global numbers; what all ranks have a part of
(the router's gradient, losses) is summed over pieces in their order, never in the order in which a
library happens to add.

**Sums, not means.** A gradient is the sum over the tokens of all ranks. Nothing is divided by the
number of ranks: a mean belongs to the loss, which divides by the number of all tokens.
"""

from typing import Annotated, NamedTuple, TypeAlias

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array

Counts: TypeAlias = Annotated[np.ndarray, "R"]  # rows per rank
Bounds: TypeAlias = Annotated[np.ndarray, "R + 1"]  # rank r has bounds[r] : bounds[r + 1]

FAILED = -1  # the count of a rank that cannot go on: all others then end too
LARGEST_COUNT = 2**31 - 1  # rows in one message; MPI counts with 32 bits


class Send(NamedTuple):
    """One all-to-all exchange: each rank sends rows to each rank.

    It is answered by the rows that came: those of rank 0, then those of rank 1, and so on.
    """

    rows: Array  # (n, ...), those for rank 0 first
    counts: Counts  # how many of them go to each rank
    expected: Counts  # how many come from each rank
    name: str


class Gather(NamedTuple):
    """Every rank gets the arrays of all ranks. It is answered by a list, in the order of ranks.

    The arrays may have different lengths; their other axes and types are equal.
    """

    array: Array
    name: str


Exchange: TypeAlias = Send | Gather


class RankError(RuntimeError):
    """A rank failed, or took part in another exchange than the others. `rank` says which."""

    def __init__(self, rank: int, message: str):
        super().__init__(f"rank {rank}: {message}")
        self.rank = rank


def shares(n: int, ranks: int) -> Bounds:
    """The bounds of `ranks` contiguous shares of n things, whose sizes differ by at most one."""
    checks.integer("n", n, minimum=0)
    checks.integer("ranks", ranks, minimum=1)
    return np.array([n * rank // ranks for rank in range(ranks + 1)])


def check_counts(name: str, counts: Counts) -> None:
    """Raise InputError for more rows in one message, or before it, than MPI can count."""
    before = int(counts[:-1].sum()) if len(counts) else 0
    most = max(int(counts.max(initial=0)), before)
    if most > LARGEST_COUNT:
        raise InputError(f"{name}: wanted at most {LARGEST_COUNT} rows per rank, got {most}")


def check_same(exchanges: list[Exchange | None]) -> None:
    """Raise RankError where the ranks do not take part in the same exchange, of rows of the same
    shape and type; None is a rank that has ended. The rank that differs from the most is named.
    """
    check_equal([describe(exchange) for exchange in exchanges])


def check_equal(described: list[str]) -> None:
    """Raise RankError where the ranks do not say the same (`describe`)."""
    usual = max(described, key=described.count)
    for rank, text in enumerate(described):
        if text != usual:
            raise RankError(rank, f"wanted to take part in {usual}, as other ranks, got {text}")


def describe(exchange: Exchange | None) -> str:
    """What an exchange must have in common on all ranks, in words."""
    if exchange is None:
        return "no exchange, it has ended"
    array = exchange.rows if isinstance(exchange, Send) else exchange.array
    shape = "×".join(map(str, array.shape[1:])) or "one number"
    kind = type(exchange).__name__
    return f"the exchange {exchange.name!r} ({kind}, rows of {shape}, {array.dtype})"


def error_text(error: BaseException) -> str:
    """An error of a rank in one line: with its type, where the message is not meant for people."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it ended by sys.exit({error.code!r})"
    return " ".join(f"{type(error).__name__}: {error}".split())
