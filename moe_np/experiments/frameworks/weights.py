"""Parameters of ours as the weights of PyTorch and JAX, and back: dicts of arrays both ways.

    ours                              PyTorch, a state dict      JAX, a pytree
    {"router": {"w": w}, ...}         {"router.w": tensor, ...}  {"router": {"w": array}, ...}

    module.load_state_dict(weights.to_torch(params))
    params = weights.from_torch(module.state_dict())

Nothing is shared: a change on one side is not seen on the other. Matrices of `torch.nn.Linear` are
transposed, ours are (inputs, outputs); whoever uses that module transposes them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.params import leaves, map_leaves, nest
from moe_np.experiments.common import extras


def to_torch(params: Any) -> dict[str, Any]:
    """A state dict: {path: tensor} of nested parameters; types stay. Needs PyTorch."""
    extras.require("torch", "frameworks")
    import torch

    return {path: torch.tensor(np.array(array)) for path, array in leaves(params).items()}


def from_torch(state: Mapping[str, Any]) -> Any:
    """Nested parameters from a state dict, on whatever device it is; bfloat16 becomes float32.

    Raises InputError for an entry that is no tensor.
    """
    extras.require("torch", "frameworks")
    import torch

    arrays = {}
    for path, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"state[{path!r}]: wanted a tensor, got {type(tensor).__name__}")
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        arrays[path] = np.array(tensor.numpy())
    return nest(arrays)


def to_jax(params: Any) -> Any:
    """The same nested form with arrays of JAX. Without `jax_enable_x64` they are float32."""
    extras.require("jax", "frameworks")
    import jax.numpy as jnp

    return map_leaves(lambda array: jnp.array(array), params)


def from_jax(tree: Any) -> Any:
    """Nested parameters from a pytree of dicts and lists; bfloat16 becomes float32."""
    extras.require("jax", "frameworks")
    import jax

    def array_of(leaf):
        array = np.array(leaf)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array

    return jax.tree_util.tree_map(array_of, tree)
