"""Keys and values of earlier positions, kept during generation (key-value cache).

The arrays have room for Tmax positions from the beginning, so that a step of generation copies
only its own positions. Keys are kept after their rotation, at absolute positions.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayBTHd, DType

Kept = Annotated[np.ndarray, "B, Hk, Tmax, d"]


@dataclass
class KeyValues:
    """The first `length` positions of `keys` and `values` are filled. `append` changes the record
    in place.
    """

    keys: Kept
    values: Kept
    length: int = 0

    def append(self, k: ArrayBTHd, v: ArrayBTHd) -> None:
        """Keep k and v (B, T, Hk, d) of the next T positions. Raises InputError without room."""
        B, Hk, room, d = self.keys.shape
        if k.shape[0] != B or k.shape[2:] != (Hk, d) or k.dtype != self.keys.dtype:
            wanted = f"{B} sequences, {Hk} key heads of width {d} in {self.keys.dtype}"
            raise InputError(f"kv: it holds {wanted}; got keys of shape {k.shape} in {k.dtype}")
        end = self.length + k.shape[1]
        if end > room:
            raise InputError(f"kv: wanted room for {end} positions, got {room}")
        self.keys[:, :, self.length : end] = k.transpose(0, 2, 1, 3)
        self.values[:, :, self.length : end] = v.transpose(0, 2, 1, 3)
        self.length = end

    def filled(self) -> tuple[ArrayBTHd, ArrayBTHd]:
        """Keys and values so far, views of shape (B, length, Hk, d)."""
        keys = self.keys[:, :, : self.length].transpose(0, 2, 1, 3)
        return keys, self.values[:, :, : self.length].transpose(0, 2, 1, 3)


def empty(
    n_sequences: int, kv_heads: int, n_positions: int, d: int, *, dtype: DType = np.float64
) -> KeyValues:
    """Room for n_positions of n_sequences, with nothing in it."""
    sizes = {"n_sequences": n_sequences, "kv_heads": kv_heads, "n_positions": n_positions, "d": d}
    shape = tuple(checks.size(name, value) for name, value in sizes.items())
    dtype = checks.float_type("dtype", dtype)
    return KeyValues(np.zeros(shape, dtype), np.zeros(shape, dtype))
