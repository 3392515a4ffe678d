"""The linear maps of whole models, x w, and the gradients of x and w: products of many rows with a
matrix, divided among the threads, with the same bits for any number of them.

    y = x w,        dx = dy wᵀ,        dw = xᵀ dy

    x     (N, D)    one row per token
    w     (D, K)

These are inner functions without checks. With Numba, large products run in
`moe_np.kernels.products`; otherwise BLAS has one thread.
"""

from typing import Annotated

import numpy as np

from moe_np import kernels
from moe_np.base import machine
from moe_np.base.types import Array, ArrayND

ArrayNK = Annotated[np.ndarray, "N, K"]
ArrayDK = Annotated[np.ndarray, "D, K"]


def forward(x: ArrayND, w: ArrayDK) -> ArrayNK:
    """y = x w."""
    return _product(x, w, False)


def input_gradient(dy: ArrayNK, w: ArrayDK) -> ArrayND:
    """dx = dy wᵀ."""
    return _product(dy, w, True)


def weight_gradient(x: ArrayND, dy: ArrayNK) -> ArrayDK:
    """dw = xᵀ dy."""
    if _is_large(x, dy.shape[1]):
        return kernels.products.weight_gradient(x, dy)
    return machine.product(x.T, dy)


def _product(x: Array, w: Array, transposed: bool) -> Array:
    if _is_large(x, w.shape[0 if transposed else 1]):
        return kernels.products.product(x, w, transposed)
    return machine.product(x, w.T if transposed else w)


def _is_large(x, columns):
    return x.size * columns >= machine.SMALL and kernels.compiled(x.dtype)
