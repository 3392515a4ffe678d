"""What all ranks must have in common: the same parameters, told by a hash, at the start and at any
time later.

A router that differs between ranks sends tokens by two rules, and nothing in a loss shows it. A
seed that depends on the rank, a checkpoint that one rank did not load, a sum that one rank left out
are seen here.
"""

import hashlib
from collections.abc import Generator
from typing import Any

import numpy as np

from moe_np.base.params import leaves
from moe_np.base.types import Array
from moe_np.parallel.exchanges import Exchange, Gather, RankError


def same(params: Any, name: str = "params") -> Generator[Exchange, Any, None]:
    """Raise RankError unless the nested parameters are the same on all ranks, to the bit. It names
    the rank that differs from most, and the first leaf in which it does.
    """
    arrays = leaves(params)
    table = np.stack([_digest(np.array(list(arrays), "U")), *map(_digest, arrays.values())])
    gathered = yield Gather(table, f"hash of {name}")
    for number, what in enumerate(["the names of the leaves", *arrays]):
        _check_equal([table[number].tobytes() for table in gathered], f"{name}, {what}")


def _digest(array: Array):
    """32 bytes for the type, the shape and all bits of an array."""
    hashed = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    hashed.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(hashed.digest(), np.uint8)


def _check_equal(digests, what):
    usual = max(digests, key=digests.count)
    for rank, digest in enumerate(digests):
        if digest != usual:
            raise RankError(rank, f"{what}: wanted the same as other ranks have, got another one")
