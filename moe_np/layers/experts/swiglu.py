"""SwiGLU experts, the gated feed-forward networks of Mixtral and DeepSeek (Shazeer 2020, arXiv
2002.05202, eq. 6).

    y = (silu(x W1_m) ⊙ x W3_m) W2_m,    silu(a) = a σ(a)

`experts.with_dropout` puts dropout on silu(x W1) ⊙ x W3.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.types import ArrayAD, DType, Params, Rng
from moe_np.layers import dropout
from moe_np.layers.experts.expert import (
    Expert,
    Offsets,
    Outputs,
    blocks,
    check_rows,
    normal_init,
    of_block,
    per_expert,
    sum_shared,
    zero_gradients,
)


def init(
    rng: Rng,
    d_model: int,
    n_experts: int,
    hidden: int,
    d_out: int | None = None,
    *,
    scale: float = 1.0,
    share: Sequence[str] = (),
    dtype: DType = np.float64,
) -> Params:
    """{"w1": (E, D, H), "w3": (E, D, H), "w2": (E, H, D_out)}: the names of Mixtral, no biases.

    Weights are normal with standard deviation scale/√fan_in. d_out is d_model if not given; `share`
    names the parameters that all experts have in common.
    """
    d_out = d_model if d_out is None else d_out
    shapes = {"w1": (d_model, hidden), "w3": (d_model, hidden), "w2": (hidden, d_out)}
    return normal_init(rng, shapes, n_experts, scale=scale, share=share, dtype=dtype)


class Cache(NamedTuple):
    """What the backward pass of SwiGLU experts needs."""

    params: Params
    rows: ArrayAD
    offsets: Offsets
    a: Annotated[np.ndarray, "A, H"]  # x W1, the input of silu
    b: Annotated[np.ndarray, "A, H"]  # x W3, which silu(a) is multiplied with
    p: float = 0.0  # the probability of dropout
    mask: Annotated[np.ndarray, "A, H"] | None = None  # what dropout leaves


def forward(
    params: Params, rows: ArrayAD, offsets: Offsets, *, p: float = 0.0, rng: Rng | None = None
) -> tuple[Outputs, Cache]:
    """y = (silu(a) ⊙ b) W2_m with a = x W1_m, b = x W3_m: rows (A, D) -> y (A, D_out), cache.

    With a generator, dropout with probability p on silu(a) ⊙ b, one mask per row.
    """
    params, rows, offsets = check_rows(params, rows, offsets, AXES)
    w1, w3, w2 = (per_expert(params, name, offsets) for name in ("w1", "w3", "w2"))
    a = np.empty((len(rows), w1.shape[2]), rows.dtype)
    b = np.empty_like(a)
    y = np.empty((len(rows), w2.shape[2]), rows.dtype)
    mask = dropout.draw(a.shape, p, rng)
    for m, block in blocks(offsets):
        a[block] = rows[block] @ w1[m]
        b[block] = rows[block] @ w3[m]
        h = a[block] * numerics.sigmoid(a[block]) * b[block]
        y[block] = dropout.apply(h, of_block(mask, block), p) @ w2[m]
    return y, Cache(params, rows, offsets, a, b, p, mask)


def backward(dy: Outputs, cache: Cache) -> tuple[ArrayAD, Params]:
    """dy (A, D_out) -> drows (A, D), {"w1", "w3", "w2"}. silu'(a) = σ(a) (1 + a (1 − σ(a)))."""
    params, rows, offsets, a, b, p, mask = cache
    w1, w3, w2 = (per_expert(params, name, offsets) for name in ("w1", "w3", "w2"))
    drows = np.empty_like(rows)
    grads = zero_gradients(params, offsets)
    for m, block in blocks(offsets):
        kept = of_block(mask, block)
        dh = dropout.backward(dy[block] @ w2[m].T, kept, p)
        s = numerics.sigmoid(a[block])
        grads["w2"][m] = dropout.apply(a[block] * s * b[block], kept, p).T @ dy[block]
        da = dh * b[block] * s * (1 + a[block] * (1 - s))
        db = dh * a[block] * s
        grads["w1"][m] = rows[block].T @ da
        grads["w3"][m] = rows[block].T @ db
        drows[block] = da @ w1[m].T + db @ w3[m].T
    return drows, sum_shared(grads, params)


AXES = {
    "w1": ("D", "H"),
    "w3": ("D", "H"),
    "w2": ("H", "D_out"),
    "x": ("D",),
}
SWIGLU = Expert(init, forward, backward, AXES, ("swiglu", Cache))
