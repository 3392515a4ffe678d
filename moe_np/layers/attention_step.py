"""Causal attention of one position per sequence to itself and to those before it, in generation,
without checks and without a backward pass.

    p = softmax over s of scale q·k_s,    out = Σ_s p_s v_s · W^O

    here           shape              meaning
    h              (B, D)             the new position of each sequence
    q              (B, Hq, d)         its queries, rotated
    keys, values   (B, Hk, rows, d)   of the positions so far, as `KeyValues` has them

It is `forward` of `moe_np.layers.attention` with `kv`, which has the equations in full, for T = 1.
With Numba scores and sums run in `moe_np.kernels.attention_step`.
"""

from typing import Annotated

import numpy as np

from moe_np import kernels
from moe_np.base import numerics
from moe_np.base.types import Array
from moe_np.layers import products, projections, rotary
from moe_np.layers.key_values import KeyValues
from moe_np.layers.projections import Tree
from moe_np.layers.rotary import Rotary

ArrayBD = Annotated[np.ndarray, "B, D"]
ArrayBS = Annotated[np.ndarray, "B, S"]


def forward(
    params: Tree,
    h: ArrayBD,
    kv: KeyValues,
    angles: Rotary,
    *,
    heads: int,
    window: int | None,
    valid: ArrayBS | None,
    eps: float,
    clip_qkv: float | None = None,
) -> ArrayBD:
    """h (B, D) -> out (B, D). Keys and values of h are written behind those of kv, whose length the
    caller raises after the last layer.

    The arguments are those of `attention.forward`; d and the number of key heads are those of kv.
    """
    kv_heads, _, d = kv.keys.shape[1:]
    x = h[:, None]
    q, _ = projections.project(params, x, "q", heads, eps, clip_qkv)
    k, _ = projections.project(params, x, "k", kv_heads, eps, clip_qkv)
    v, _ = projections.project(params, x, "v", kv_heads, eps, clip_qkv)
    row = kv.free_row()
    kv.keys[:, :, row] = rotary.turn(k, *angles)[:, 0]
    kv.values[:, :, row] = v[:, 0]
    end = row + 1
    keep = slice(0 if window is None else max(0, end - window), end)
    q = rotary.turn(q, *angles)[:, 0]
    valid = None if valid is None else valid[:, kv.first :]
    attend = kernels.attention_step.forward if kernels.compiled(h.dtype) else attend_numpy
    out = attend(q, kv.keys, kv.values, keep, valid, d**-0.5)
    return products.forward(out.reshape(len(h), heads * d), params["wo"])


def attend_numpy(
    q: Array, keys: Array, values: Array, keep: slice, valid: ArrayBS | None, scale: float
) -> Array:
    """Σ_s softmax(scale q·k)_s v_s over the positions in `keep`: -> (B, Hq, d)."""
    keys = keys[:, :, keep]
    B, Hk, _, d = keys.shape
    scores = q.reshape(B, Hk, -1, d) @ keys.swapaxes(2, 3)  # (B, Hk, Hq/Hk, S)
    scores *= q.dtype.type(scale)
    if valid is not None:
        scores[~np.broadcast_to(valid[:, None, None, keep], scores.shape)] = -np.inf
    return (numerics.softmax(scores) @ values[:, :, keep]).reshape(q.shape)
