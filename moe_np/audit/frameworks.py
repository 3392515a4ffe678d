"""NumPy, PyTorch and JAX behind one small interface: arrays in and out, seeds, gradients.

A framework is imported when it is first used. Gradients are those of the framework (autograd,
`jax.grad`); NumPy has none, and what is written in it has to bring its backward pass.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Array

Function = Callable[[dict[str, Any]], Any]  # native arrays by name -> a native number


class NumPy:
    """Code in NumPy."""

    name = "numpy"

    def put(self, array: Array) -> Any:
        """An array for the code under audit: a copy, so that a change in place can be seen."""
        return np.array(array)

    def get(self, value: Any) -> Array:
        """What the code under audit has returned, as an array."""
        return np.asarray(value)

    def holds(self, value: Any) -> bool:
        """Whether `value` is an array or a number of this framework."""
        return isinstance(value, (np.ndarray, np.generic, float, int)) and not isinstance(
            value, bool
        )

    def seed(self, seed: int) -> None:
        """Set the global generator, which code may use although it should not."""
        np.random.seed(seed)  # noqa: NPY002 - code under audit may draw from it

    def generator(self, seed: int) -> Any:
        """A generator for a parameter that wants one."""
        return np.random.default_rng(seed)

    def gather(self, values: Array, index: Any, shape: tuple[int, ...]) -> Any:
        """values (N, E) at the native indices (N, k), native and of this shape."""
        rows = np.clip(self.get(index).reshape(len(values), -1), 0, values.shape[1] - 1)
        return self.put(np.take_along_axis(values, rows, axis=1).reshape(shape))

    def gradient(self, function: Function, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """{name: gradient of function(inputs)}; None, because NumPy has no automatic gradient."""
        return None


class Torch(NumPy):
    """Code in PyTorch."""

    name = "torch"

    def __init__(self):
        self.torch: Any = _import("torch")
        self.torch.set_num_threads(1)  # the arrays are tiny

    def put(self, array: Array) -> Any:
        """A new tensor."""
        return self.torch.tensor(np.ascontiguousarray(array))

    def get(self, value: Any) -> Array:
        """The values of a tensor; bfloat16, which NumPy lacks, as float32."""
        if not isinstance(value, self.torch.Tensor):
            return np.asarray(value)
        value = value.detach()
        return (value.float() if value.dtype == self.torch.bfloat16 else value).numpy()

    def holds(self, value: Any) -> bool:
        """Whether `value` is a tensor or a number."""
        return isinstance(value, self.torch.Tensor) or super().holds(value)

    def seed(self, seed: int) -> None:
        """Set the global generators."""
        super().seed(seed)
        self.torch.manual_seed(seed)

    def generator(self, seed: int) -> Any:
        """A torch.Generator."""
        return self.torch.Generator().manual_seed(seed)

    def gradient(self, function: Function, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """Autograd. An input that the number does not depend on has a gradient of 0."""
        leaves = {
            name: self.put(a).requires_grad_(a.dtype.kind == "f") for name, a in inputs.items()
        }
        # a copy, so that code that changes x in place does not change a leaf
        value = function({name: leaf.clone() for name, leaf in leaves.items()})
        floats = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        if not (isinstance(value, self.torch.Tensor) and value.requires_grad):
            return {name: np.zeros(leaf.shape) for name, leaf in floats.items()}
        grads = self.torch.autograd.grad(value, list(floats.values()), allow_unused=True)
        return {
            name: np.zeros(leaf.shape) if g is None else self.get(g)
            for (name, leaf), g in zip(floats.items(), grads, strict=True)
        }


class Jax(NumPy):
    """Code in JAX, in double precision."""

    name = "jax"

    def __init__(self):
        self.jax: Any = _import("jax")
        self.jax.config.update("jax_enable_x64", True)

    def put(self, array: Array) -> Any:
        """A JAX array."""
        return self.jax.numpy.asarray(array)

    def holds(self, value: Any) -> bool:
        """Whether `value` is a JAX array or a number."""
        return isinstance(value, self.jax.Array) or super().holds(value)

    def generator(self, seed: int) -> Any:
        """A key."""
        return self.jax.random.key(seed)

    def gather(self, values: Array, index: Any, shape: tuple[int, ...]) -> Any:
        """In JAX, because inside a gradient the indices have no values."""
        rows = self.jax.numpy.clip(index.reshape(len(values), -1), 0, values.shape[1] - 1)
        return self.jax.numpy.take_along_axis(self.put(values), rows, axis=1).reshape(shape)

    def gradient(self, function: Function, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """`jax.grad`, compiled as a whole, which is faster than operation by operation."""
        floats = {name: a for name, a in inputs.items() if a.dtype.kind == "f"}
        constants = {name: self.put(a) for name, a in inputs.items() if name not in floats}
        compiled = self.jax.jit(self.jax.grad(lambda leaves: function({**constants, **leaves})))
        grads = compiled({name: self.put(a) for name, a in floats.items()})
        return {name: np.asarray(g) for name, g in grads.items()}


FRAMEWORKS = {"numpy": NumPy, "torch": Torch, "jax": Jax}


def framework(name: str) -> NumPy:
    """The framework of this name. Raises InputError for another name and for an absent one."""
    if name not in FRAMEWORKS:
        raise InputError(f"framework: wanted {', '.join(FRAMEWORKS)}, got {name!r}")
    return FRAMEWORKS[name]()


def framework_of(target: Any) -> str:
    """The framework in which a function, a class or an object is written.

    An instance or a subclass of torch.nn.Module is PyTorch; else the modules that its code names
    decide.
    """
    kind = target if isinstance(target, type) else type(target)
    if any(base.__module__.startswith("torch.") for base in kind.__mro__):
        return "torch"
    code = getattr(target, "__func__", target)
    if not isinstance(target, type) and not hasattr(code, "__code__") and kind is not ModuleType:
        code = vars(kind).get("__call__") or getattr(kind, "forward", target)
    names = getattr(code, "__globals__", None)
    if names is None:
        module = target.__name__ if hasattr(target, "__spec__") else kind.__module__
        names = vars(sys.modules[module]) if module in sys.modules else {}
    # a file may use several frameworks: what the code mentions comes first
    for used in (_mentioned(code, set()), set(map(_root, names.values()))):
        known = [name for name in ("torch", "jax", "numpy") if name in used]
        if known:
            return known[0]
    return "numpy"


def _mentioned(function, seen):
    """The packages that a function mentions, and functions of its file that it calls."""
    code = getattr(function, "__code__", None)
    if code is None or function in seen:
        return set()
    seen.add(function)
    names = set(code.co_names)
    for constant in code.co_consts:
        names |= set(getattr(constant, "co_names", ()))
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    roots = set(map(_root, values))
    for value in values:
        if getattr(value, "__module__", "") == function.__module__:
            roots |= _mentioned(value, seen)
    return roots


def _root(value):
    """The package from which a global name comes."""
    name = value.__name__ if hasattr(value, "__spec__") else getattr(value, "__module__", None)
    return str(name).split(".")[0]


def _import(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name}: the code under audit needs it, and it is not installed") from (
            error
        )
