"""Where each rank stands, in a file that all ranks of one machine write and their launcher reads.

A rank that is killed, or waits for ever, cannot say so; its line of this file can. The launcher
(`moe_np.parallel.launch`) makes the file and names it in the environment. Without one, nothing is
written.
"""

import functools
import os
import pathlib
from typing import Annotated

import numpy as np

VARIABLE = "MOE_NP_RANKS_FILE"
LINE = np.dtype(
    [("pid", "i8"), ("exchanges", "i8"), ("name", "S64"), ("waiting", "i8"), ("ended", "i8")]
)

Lines = Annotated[np.ndarray, "R"]  # of the type LINE


def create(path: pathlib.Path, ranks: int) -> Lines:
    """A new file: the lines of all ranks, empty."""
    return np.memmap(path, LINE, "w+", shape=(ranks,))


@functools.cache
def _lines(path):
    return np.memmap(path, LINE, "r+")


def note(
    rank: int, *, name: str | None = None, waiting: bool | None = None, ended: bool | None = None
) -> None:
    """Write that this rank is there, has come to the exchange `name`, waits in it (False: has got
    its answer), or has ended in order (False: that it goes on, in another run).
    """
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    line = _lines(path)[rank : rank + 1]
    line["pid"] = os.getpid()
    if ended is not None:
        line["ended"] = ended
    if waiting is not None:
        line["waiting"] = waiting
    if name is not None:
        line["name"] = name.encode()[:64]
        line["exchanges"] += 1


def is_rank() -> bool:
    """Whether this process was started as a rank by the launcher."""
    return VARIABLE in os.environ
