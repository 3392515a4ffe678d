"""Keys and values of earlier positions, kept during generation (key-value cache).

The arrays have rows for all positions from the beginning, so that a step of generation copies only
its own positions. Keys are kept after their rotation, at absolute positions.

Behind a sliding window a query reads the last `window` positions only. There are 2 · window rows
then, or as many as the prompt has; when they are full, the last window − 1 positions move to the
first of 2 · window new rows. So the memory does not grow with the text, and the rows, with them the
sums over them, have the order of the positions: the output has the same bits.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayBTHd, DType

Kept = Annotated[np.ndarray, "B, Hk, rows, d"]


@dataclass
class KeyValues:
    """The rows of `keys` and `values` from 0 on are the positions `first` to `length` − 1. `append`
    changes the record in place.
    """

    keys: Kept
    values: Kept
    length: int = 0  # positions so far
    first: int = 0  # the position in row 0; above 0 only behind a window
    window: int | None = None  # positions that a query reads; None: all
    room: int = 0  # positions that there may be; 0: as many as rows

    def __post_init__(self) -> None:
        self.room = self.room or self.keys.shape[2]

    def append(self, k: ArrayBTHd, v: ArrayBTHd, *, before: int = 0) -> None:
        """Keep k and v (B, T, Hk, d) of the next T positions. Raises InputError without room, and
        where queries read more positions before theirs, `before`, than the window keeps.
        """
        B, Hk, _, d = self.keys.shape
        if self.window is not None and before >= self.window:
            wanted = f"at most {self.window - 1} positions before a query"
            raise InputError(f"kv: it keeps {wanted}; got a wider window, or none")
        if k.shape[0] != B or k.shape[2:] != (Hk, d) or k.dtype != self.keys.dtype:
            wanted = f"{B} sequences, {Hk} key heads of width {d} in {self.keys.dtype}"
            raise InputError(f"kv: it holds {wanted}; got keys of shape {k.shape} in {k.dtype}")
        T = k.shape[1]
        if self.length + T > self.room:
            raise InputError(f"kv: wanted room for {self.length + T} positions, got {self.room}")
        row = self.free_row(T)
        self.keys[:, :, row : row + T] = k.transpose(0, 2, 1, 3)
        self.values[:, :, row : row + T] = v.transpose(0, 2, 1, 3)
        self.length += T

    def free_row(self, T: int = 1) -> int:
        """The row of the next position, with rows for T of them. What their window does not reach
        may be dropped for it.
        """
        row = self.length - self.first
        if self.window is None or row + T <= self.keys.shape[2]:
            return row
        kept = min(row, self.window - 1)
        rows = max(2 * self.window, kept + T)
        self.keys = _with_rows(self.keys[:, :, row - kept : row], rows)
        self.values = _with_rows(self.values[:, :, row - kept : row], rows)
        self.first = self.length - kept
        return kept

    def filled(self) -> tuple[ArrayBTHd, ArrayBTHd]:
        """Keys and values that are there, views of shape (B, length − first, Hk, d)."""
        row = self.length - self.first
        keys = self.keys[:, :, :row].transpose(0, 2, 1, 3)
        return keys, self.values[:, :, :row].transpose(0, 2, 1, 3)


def _with_rows(a, rows):
    """A copy with more rows."""
    out = np.zeros((*a.shape[:2], rows, a.shape[3]), a.dtype)
    out[:, :, : a.shape[2]] = a
    return out


def empty(
    n_sequences: int,
    kv_heads: int,
    n_positions: int,
    d: int,
    *,
    window: int | None = None,
    prompt: int = 0,
    dtype: DType = np.float64,
) -> KeyValues:
    """Room for n_positions of n_sequences, with nothing in it.

    window   positions that a query reads, its own included; None: all
    prompt   positions that all have rows until the next one comes
    """
    sizes = {"n_sequences": n_sequences, "kv_heads": kv_heads, "n_positions": n_positions, "d": d}
    B, Hk, room, d = (checks.size(name, value) for name, value in sizes.items())
    rows = room if window is None else min(room, max(prompt, 2 * checks.size("window", window)))
    dtype = checks.float_type("dtype", dtype)
    keys, values = (np.zeros((B, Hk, rows, d), dtype) for _ in range(2))
    return KeyValues(keys, values, window=window, room=room)
