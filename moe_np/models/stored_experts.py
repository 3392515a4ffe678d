"""Experts that stay in the files of a checkpoint until a token chooses one.

`checkpoints.load(folder, lazy=True)` puts a StoredExperts in the place of the parameters of each
layer's routed experts, and `moe_np.layers.mixture_layer` reads those that it needs.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.types import ArrayE, DType, Params
from moe_np.models.checkpoint_files import Arrays
from moe_np.models.checkpoint_names import Piece


class Source(NamedTuple):
    """Where a parameter of one expert is."""

    path: str  # of the file
    kind: str  # a key of safetensors.DTYPES
    shape: tuple[int, ...]  # in the file
    start: int  # its first byte
    piece: Piece  # `piece.of` makes the parameter of the file's array


class StoredExperts:
    """The experts of one layer in their files: `read` fetches some of them."""

    def __init__(self, arrays: Arrays, parts: dict[str, list[Piece]], n: int, dtype: DType):
        self._arrays = arrays
        self._parts = parts
        self._n = n
        self._dtype = dtype

    def __len__(self) -> int:
        return self._n

    def read(self, numbers: ArrayE) -> Params:
        """The parameters of the experts of these numbers, each (len(numbers), ...)."""
        params = {}
        for leaf, parts in self._parts.items():
            experts = [self._expert(parts, int(number)) for number in numbers]
            params[leaf] = np.stack(experts).astype(self._dtype, copy=False)
        return params

    def sources(self, number: int) -> dict[str, Source]:
        """{name of a parameter: where that of this expert is}, for a reader of its own."""
        places = {}
        for leaf, parts in self._parts.items():
            together = parts[0].expert is None
            piece = parts[0] if together else parts[number]
            place = self._arrays.place(piece.name, number if together else None)
            places[leaf] = Source(*place, piece)
        return places

    @property
    def dtype(self) -> np.dtype:
        """The type of the parameters that `read` returns."""
        return np.dtype(self._dtype)

    def _expert(self, parts, number):
        if parts[0].expert is None:  # all experts of the layer in one array
            return parts[0].of(self._arrays.read(parts[0].name, number))
        return parts[number].of(self._arrays.read(parts[number].name))
