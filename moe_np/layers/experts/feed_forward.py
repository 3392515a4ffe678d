"""Feed-forward experts: two layers with ReLU or GELU between them.

y = act(x W1_m + b1_m) W2_m + b2_m

`experts.with_dropout` puts dropout behind the activation.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from scipy.special import erf

from moe_np.base.types import Array, ArrayAD, DType, Params, Rng
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

# --- activations ----------------------------------------------------------------------------------

SQRT_HALF = 0.5**0.5
NORMAL_PEAK = (0.5 / np.pi) ** 0.5  # φ(0)


def relu(z: Array) -> Array:
    """max(z, 0)."""
    return np.maximum(z, 0)


def relu_backward(dh: Array, z: Array) -> Array:
    """dz = dh where z > 0. At z = 0 the derivative is taken as 0."""
    return dh * (z > 0)


def gelu(z: Array) -> Array:
    """z Φ(z), Φ the normal distribution function, with the exact erf and not by tanh."""
    return z * (0.5 * (1 + erf(z * SQRT_HALF)))


def gelu_backward(dh: Array, z: Array) -> Array:
    """dz = dh (Φ(z) + z φ(z)), φ the normal density."""
    density = np.exp(-0.5 * z * z) * NORMAL_PEAK
    return dh * (0.5 * (1 + erf(z * SQRT_HALF)) + z * density)


ACTIVATIONS = {"relu": (relu, relu_backward), "gelu": (gelu, gelu_backward)}


# --- experts --------------------------------------------------------------------------------------


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
    """{"w1": (E, D, H), "b1": (E, H), "w2": (E, H, D_out), "b2": (E, D_out)}.

    Weights are normal with standard deviation scale/√fan_in, biases zero. d_out is d_model if not
    given; `share` names the parameters that all experts have in common.
    """
    d_out = d_model if d_out is None else d_out
    shapes = {"w1": (d_model, hidden), "b1": (hidden,), "w2": (hidden, d_out), "b2": (d_out,)}
    return normal_init(rng, shapes, n_experts, scale=scale, share=share, dtype=dtype)


class Cache(NamedTuple):
    """What the backward pass of feed-forward experts needs."""

    params: Params
    rows: ArrayAD
    offsets: Offsets
    # before the activation; the compiled ReLU keeps max(z, 0), which has the same backward pass
    z: Annotated[np.ndarray, "A, H"]
    activation: str  # a key of ACTIVATIONS
    p: float = 0.0  # the probability of dropout
    mask: Annotated[np.ndarray, "A, H"] | None = None  # what dropout leaves


def forward(
    params: Params,
    rows: ArrayAD,
    offsets: Offsets,
    *,
    activation: str,
    p: float = 0.0,
    rng: Rng | None = None,
) -> tuple[Outputs, Cache]:
    """y = act(x W1_m + b1_m) W2_m + b2_m for the rows x of expert m: -> (y (A, D_out), cache).

    With a generator, dropout with probability p on act(...), one mask per row.
    """
    params, rows, offsets = check_rows(params, rows, offsets, AXES)
    w1, b1, w2, b2 = (per_expert(params, name, offsets) for name in ("w1", "b1", "w2", "b2"))
    act, _ = ACTIVATIONS[activation]
    z = np.empty((len(rows), w1.shape[2]), rows.dtype)
    y = np.empty((len(rows), w2.shape[2]), rows.dtype)
    mask = dropout.draw(z.shape, p, rng)
    for m, block in blocks(offsets):
        z[block] = rows[block] @ w1[m] + b1[m]
        h = dropout.apply(act(z[block]), of_block(mask, block), p)
        y[block] = h @ w2[m] + b2[m]
    return y, Cache(params, rows, offsets, z, activation, p, mask)


def backward(dy: Outputs, cache: Cache) -> tuple[ArrayAD, Params]:
    """dy (A, D_out) -> drows (A, D), {"w1", "b1", "w2", "b2"}."""
    params, rows, offsets, z, activation, p, mask = cache
    w1, w2 = (per_expert(params, name, offsets) for name in ("w1", "w2"))
    act, act_backward = ACTIVATIONS[activation]
    drows = np.empty_like(rows)
    grads = zero_gradients(params, offsets)
    for m, block in blocks(offsets):
        kept = of_block(mask, block)
        grads["w2"][m] = dropout.apply(act(z[block]), kept, p).T @ dy[block]
        grads["b2"][m] = dy[block].sum(axis=0)
        dh = dropout.backward(dy[block] @ w2[m].T, kept, p)
        dz = act_backward(dh, z[block])
        grads["w1"][m] = rows[block].T @ dz
        grads["b1"][m] = dz.sum(axis=0)
        drows[block] = dz @ w1[m].T
    return drows, sum_shared(grads, params)


AXES = {
    "w1": ("D", "H"),
    "b1": ("H",),
    "w2": ("H", "D_out"),
    "b2": ("D_out",),
    "x": ("D",),
}


def _expert(activation):
    def cache_of(params, rows, offsets, z, _):
        return Cache(params, rows, offsets, z, activation)

    activated = functools.partial(forward, activation=activation)
    return Expert(init, activated, backward, AXES, (activation, cache_of))


RELU = _expert("relu")
GELU = _expert("gelu")
