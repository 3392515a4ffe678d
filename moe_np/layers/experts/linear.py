"""Linear experts: y = x W_m + b_m."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moe_np.base.types import ArrayAD, DType, Params, Rng
from moe_np.layers.experts.expert import (
    Expert,
    Offsets,
    Outputs,
    blocks,
    check_rows,
    normal_init,
    per_expert,
    sum_shared,
    zero_gradients,
)


def init(
    rng: Rng,
    d_model: int,
    n_experts: int,
    d_out: int | None = None,
    *,
    scale: float = 1.0,
    share: Sequence[str] = (),
    dtype: DType = np.float64,
) -> Params:
    """{"w": (E, D, D_out), "b": (E, D_out)}: w normal with standard deviation scale/√D, b zero.

    d_out is d_model if not given; `share` names the parameters that all experts have in common.
    """
    d_out = d_model if d_out is None else d_out
    shapes = {"w": (d_model, d_out), "b": (d_out,)}
    return normal_init(rng, shapes, n_experts, scale=scale, share=share, dtype=dtype)


class Cache(NamedTuple):
    """What the backward pass of linear experts needs."""

    params: Params
    rows: ArrayAD
    offsets: Offsets


def forward(params: Params, rows: ArrayAD, offsets: Offsets) -> tuple[Outputs, Cache]:
    """y = x W_m + b_m for the rows x of expert m: rows (A, D) -> y (A, D_out), cache."""
    params, rows, offsets = check_rows(params, rows, offsets, AXES)
    w, b = (per_expert(params, name, offsets) for name in ("w", "b"))
    y = np.empty((len(rows), w.shape[2]), rows.dtype)
    for m, block in blocks(offsets):
        y[block] = rows[block] @ w[m] + b[m]
    return y, Cache(params, rows, offsets)


def backward(dy: Outputs, cache: Cache) -> tuple[ArrayAD, Params]:
    """dy (A, D_out) -> drows (A, D), {"w", "b"}: drows = dy W_mᵀ, dW_m = Σ xᵀ dy, db_m = Σ dy."""
    params, rows, offsets = cache
    w = per_expert(params, "w", offsets)
    drows = np.empty_like(rows)
    grads = zero_gradients(params, offsets)
    for m, block in blocks(offsets):
        grads["w"][m] = rows[block].T @ dy[block]
        grads["b"][m] = dy[block].sum(axis=0)
        drows[block] = dy[block] @ w[m].T
    return drows, sum_shared(grads, params)


AXES = {"w": ("D", "D_out"), "b": ("D_out",), "x": ("D",)}
LINEAR = Expert(init, forward, backward, AXES)
