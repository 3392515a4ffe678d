"""The contestants of `moe_np.experiments.layer_speed.bench`, by the names in its table."""

import importlib.util
from typing import NamedTuple

from moe_np.experiments.layer_speed.numpy_contestants import (
    dense_numpy,
    moe_layer,
    numpy_mask_loop,
    products_alone,
)
from moe_np.experiments.layer_speed.problem import Prepare, problem
from moe_np.experiments.layer_speed.torch_contestants import torch_loop, transformers_mixtral

__all__ = ["CONTESTANTS", "Contestant", "installed", "problem"]


class Contestant(NamedTuple):
    prepare: Prepare
    libraries: tuple[str, ...] = ()  # which it needs
    kinds: tuple[str, ...] = ("swiglu", "relu")  # of expert, which it can compute


CONTESTANTS = {
    "moe_np": Contestant(moe_layer),
    "products_alone": Contestant(products_alone, ("numba",)),
    "dense_numpy": Contestant(dense_numpy),
    "numpy_mask_loop": Contestant(numpy_mask_loop),
    "torch_loop": Contestant(torch_loop, ("torch",)),
    "transformers_mixtral": Contestant(
        transformers_mixtral, ("torch", "transformers"), ("swiglu",)
    ),
}


def installed(kind: str) -> list[str]:
    """The contestants whose libraries are installed and that can compute experts of this kind."""
    return [
        name
        for name, contestant in CONTESTANTS.items()
        if kind in contestant.kinds
        and all(importlib.util.find_spec(library) for library in contestant.libraries)
    ]
