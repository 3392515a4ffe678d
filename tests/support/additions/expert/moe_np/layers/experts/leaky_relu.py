"""Feed-forward experts with a leaky ReLU: the negative half keeps a hundredth of its slope.

y = act(x W1_m + b1_m) W2_m + b2_m,    act(z) = max(z, z/100)
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.types import ArrayAD, Params
from moe_np.layers.experts import feed_forward
from moe_np.layers.experts.expert import (
    Expert,
    Offsets,
    Outputs,
    blocks,
    check_rows,
    per_expert,
    sum_shared,
    zero_gradients,
)

SLOPE = 0.01


class Cache(NamedTuple):
    """What the backward pass needs."""

    params: Params
    rows: ArrayAD
    offsets: Offsets
    z: Annotated[np.ndarray, "A, H"]  # before the activation


def forward(params: Params, rows: ArrayAD, offsets: Offsets) -> tuple[Outputs, Cache]:
    """The outputs of expert m for its rows: rows (A, D) -> y (A, D_out), cache."""
    params, rows, offsets = check_rows(params, rows, offsets, feed_forward.AXES)
    w1, b1, w2, b2 = (per_expert(params, name, offsets) for name in ("w1", "b1", "w2", "b2"))
    z = np.empty((len(rows), w1.shape[2]), rows.dtype)
    y = np.empty((len(rows), w2.shape[2]), rows.dtype)
    for m, block in blocks(offsets):
        z[block] = rows[block] @ w1[m] + b1[m]
        y[block] = np.maximum(z[block], SLOPE * z[block]) @ w2[m] + b2[m]
    return y, Cache(params, rows, offsets, z)


def backward(dy: Outputs, cache: Cache) -> tuple[ArrayAD, Params]:
    """dy (A, D_out) -> drows (A, D), {"w1", "b1", "w2", "b2"}. At z = 0 the slope is SLOPE."""
    params, rows, offsets, z = cache
    w1, w2 = (per_expert(params, name, offsets) for name in ("w1", "w2"))
    drows = np.empty_like(rows)
    grads = zero_gradients(params, offsets)
    for m, block in blocks(offsets):
        grads["w2"][m] = np.maximum(z[block], SLOPE * z[block]).T @ dy[block]
        grads["b2"][m] = dy[block].sum(axis=0)
        dz = (dy[block] @ w2[m].T) * np.where(z[block] > 0, 1, SLOPE).astype(z.dtype)
        grads["w1"][m] = rows[block].T @ dz
        grads["b1"][m] = dz.sum(axis=0)
        drows[block] = dz @ w1[m].T
    return drows, sum_shared(grads, params)


LEAKY_RELU = Expert(feed_forward.init, forward, backward, feed_forward.AXES)
