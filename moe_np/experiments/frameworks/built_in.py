"""What a framework has built in for mixtures of experts: each line is checked by running it.

Every function returns the words of the table, and raises where the framework has no such thing.
An exchange needs several devices: there the function is looked up and not run. Names are searched
in the module that holds the layers; a package on top of a framework, such as Transformers or Flax,
does not count.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

WORDS = ("moe", "mixture", "expert")
FEATURES = (
    "a layer of experts",
    "a product per group of rows",
    "its gradient",
    "the k largest, with gradient",
    "sum of rows by index",
    "exchange between devices",
)
NONE = "no"
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
SIZES = np.array([1, 3], np.int32)  # rows of each of two groups
MATRICES = np.arange(12, dtype=np.float32).reshape(2, 3, 2)


def layers_of_experts(module: str) -> str:
    """The names in a module that speak of experts, or "no"."""
    names = [n for n in dir(importlib.import_module(module)) if any(w in n.lower() for w in WORDS)]
    return ", ".join(names) or NONE


def per_group() -> np.ndarray:
    """The product of ROWS with the matrix of their group."""
    return np.concatenate([ROWS[:1] @ MATRICES[0], ROWS[1:] @ MATRICES[1]])


def _same(product: Any, name: str) -> str:
    if not np.allclose(np.asarray(product, np.float32), per_group(), rtol=2e-2):
        raise ArithmeticError(f"{name} gives other numbers")
    return name


# --- PyTorch --------------------------------------------------------------------------------------


def _torch_grouped(gradient=False):
    import torch
    from torch.nn import functional as F

    # the rows of a group are aligned to 16 bytes, hence 8 columns of bfloat16
    rows, matrices = (torch.zeros(shape, dtype=torch.bfloat16) for shape in ((4, 8), (2, 8, 8)))
    rows[:, :3], matrices[:, :3, :2] = torch.tensor(ROWS), torch.tensor(MATRICES)
    rows.requires_grad_(gradient)
    ends = torch.tensor(np.cumsum(SIZES), dtype=torch.int32)
    public = hasattr(F, "grouped_mm")
    product = (F.grouped_mm if public else torch._grouped_mm)(rows, matrices, offs=ends)
    name = "torch.nn.functional.grouped_mm" if public else "torch._grouped_mm"
    if gradient:
        product.backward(torch.ones_like(product))
        return f"{name}, by autograd"
    return f"{_same(product.detach().float()[:, :2], name)} (bfloat16)"


def _torch_top_k():
    import torch

    x = torch.tensor(ROWS, requires_grad=True)
    x.topk(2, dim=1)[0].sum().backward()
    return _checked(x.grad.numpy(), "torch.topk")


def _torch_sum():
    import torch

    out = torch.zeros(2, 3).index_add(0, torch.tensor([0, 1, 1, 1]), torch.tensor(ROWS))
    return _summed(out.numpy(), "torch.Tensor.index_add")


def _torch_exchange():
    import torch.distributed

    return _callable(torch.distributed.all_to_all_single, "torch.distributed.all_to_all_single")


# --- JAX ------------------------------------------------------------------------------------------


def _jax_grouped(gradient=False):
    import jax

    def product(rows):
        return jax.lax.ragged_dot(rows, MATRICES, SIZES)

    if gradient:
        jax.grad(lambda rows: product(rows).sum())(ROWS)
        return "jax.lax.ragged_dot, by jax.grad"
    return _same(product(ROWS), "jax.lax.ragged_dot")


def _jax_top_k():
    import jax

    gradient = jax.grad(lambda x: jax.lax.top_k(x, 2)[0].sum())(ROWS)
    return _checked(gradient, "jax.lax.top_k")


def _jax_sum():
    import jax

    out = jax.ops.segment_sum(ROWS, np.array([0, 1, 1, 1]), num_segments=2)
    return _summed(out, "jax.ops.segment_sum")


def _jax_exchange():
    import jax

    name = "ragged_all_to_all" if hasattr(jax.lax, "ragged_all_to_all") else "all_to_all"
    return _callable(getattr(jax.lax, name), f"jax.lax.{name}")


# --- TensorFlow -----------------------------------------------------------------------------------


def _tf_grouped(gradient=False):
    import tensorflow as tf

    words = ("groupedmatmul", "raggedmatmul", "raggeddot", "grouped_mm")
    names = [n for n in dir(tf.raw_ops) if any(word in n.lower() for word in words)]
    return ", ".join(names) or NONE


def _tf_top_k():
    import tensorflow as tf

    x = tf.constant(ROWS)
    with tf.GradientTape() as tape:
        tape.watch(x)
        largest = tf.reduce_sum(tf.math.top_k(x, 2)[0])
    return _checked(tape.gradient(largest, x).numpy(), "tf.math.top_k")


def _tf_sum():
    import tensorflow as tf

    out = tf.math.unsorted_segment_sum(ROWS, [0, 1, 1, 1], 2)
    return _summed(out.numpy(), "tf.math.unsorted_segment_sum")


def _tf_exchange():
    import tensorflow as tf

    names = [n for n in dir(tf.raw_ops) if n.startswith("CollectiveAllToAll")]
    return f"tf.raw_ops.{names[-1]} (not run)" if names else NONE


# --- the table ------------------------------------------------------------------------------------


def _checked(gradient, name):
    """The gradient of the sum of the two largest of each row of ROWS is 1 there and 0 elsewhere."""
    if not np.array_equal(np.asarray(gradient), np.tile([0, 1, 1], (4, 1))):
        raise ArithmeticError(f"{name} has another gradient")
    return name


def _summed(out, name):
    if not np.allclose(np.asarray(out), [ROWS[0], ROWS[1:].sum(axis=0)]):
        raise ArithmeticError(f"{name} gives other numbers")
    return name


def _callable(function, name):
    if not callable(function):
        raise TypeError(f"{name} is no function")
    return f"{name} (not run)"


CHECKS: dict[str, tuple[Callable[[], str], ...]] = {
    "PyTorch": (
        lambda: layers_of_experts("torch.nn"),
        _torch_grouped,
        lambda: _torch_grouped(gradient=True),
        _torch_top_k,
        _torch_sum,
        _torch_exchange,
    ),
    "JAX": (
        lambda: layers_of_experts("jax.nn"),
        _jax_grouped,
        lambda: _jax_grouped(gradient=True),
        _jax_top_k,
        _jax_sum,
        _jax_exchange,
    ),
    "TensorFlow": (
        lambda: layers_of_experts("keras.layers"),
        _tf_grouped,
        lambda: _tf_grouped(gradient=True),
        _tf_top_k,
        _tf_sum,
        _tf_exchange,
    ),
}


def table(system: str) -> dict[str, str]:
    """{feature: what the framework has}, each by running it; "no: ERROR" where that fails."""
    cells = {}
    for feature, check in zip(FEATURES, CHECKS[system], strict=True):
        try:
            cells[feature] = check()
        except Exception as error:  # of whatever kind the framework raises
            cells[feature] = f"{NONE}: {type(error).__name__}"
    return cells
