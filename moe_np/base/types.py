"""Short names for the types in signatures: arrays with their axes, parameters, generators.

`ArrayND` is an array of shape (N, D). The letters are the same in the whole package:

    N  tokens or cases        D  features              E  experts
    A  assignments            k  choices per token     H  hidden units
    C  outputs or classes     P  patches               B, S, T  sequences, slots, positions

An annotation documents the axes. `moe_np.base.checks.array` checks them at the entrance of a
function.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray

ArrayN: TypeAlias = Annotated[np.ndarray, "N"]
ArrayA: TypeAlias = Annotated[np.ndarray, "A"]
ArrayE: TypeAlias = Annotated[np.ndarray, "E"]
ArrayC: TypeAlias = Annotated[np.ndarray, "C"]
ArrayD: TypeAlias = Annotated[np.ndarray, "D"]
ArrayND: TypeAlias = Annotated[np.ndarray, "N, D"]
ArrayNE: TypeAlias = Annotated[np.ndarray, "N, E"]
ArrayNC: TypeAlias = Annotated[np.ndarray, "N, C"]
ArrayNK: TypeAlias = Annotated[np.ndarray, "N, k"]
ArrayNH: TypeAlias = Annotated[np.ndarray, "N, H"]
ArrayDE: TypeAlias = Annotated[np.ndarray, "D, E"]
ArrayAD: TypeAlias = Annotated[np.ndarray, "A, D"]
ArrayEE: TypeAlias = Annotated[np.ndarray, "E, E"]
ArrayNEC: TypeAlias = Annotated[np.ndarray, "N, E, C"]
ArrayNPD: TypeAlias = Annotated[np.ndarray, "N, P, D"]
ArrayBT: TypeAlias = Annotated[np.ndarray, "B, T"]
ArrayBTV: TypeAlias = Annotated[np.ndarray, "B, T, V"]
ArrayBTD: TypeAlias = Annotated[np.ndarray, "B, T, D"]
ArrayBTHd: TypeAlias = Annotated[np.ndarray, "B, T, H, d"]

Params: TypeAlias = dict[str, np.ndarray]  # arrays by name; gradients have the same keys
Options: TypeAlias = Mapping[str, Any]
Rng: TypeAlias = np.random.Generator
DType: TypeAlias = Any  # whatever NumPy takes as a dtype
Loss: TypeAlias = Callable[[Params], float]
