"""Attention of one position per sequence to the positions before it, as a compiled loop; the
equation is in `moe_np.layers.attention_step`.

One query per head has too little work for a product of matrices: the loops read keys and values
where they lie, once per query head.
"""

import numpy as np

from moe_np.base.types import Array
from moe_np.kernels.machine.blas import read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED, exp
from moe_np.kernels.machine.jit_options import ENTRY, INNER

SUMS = {"reassoc", "contract", "nsz"}  # sums may be reordered; infinities and NaN keep their sense


@njit(**INNER, fastmath=SUMS)
def _dot(a, b):
    total = a.dtype.type(0)
    for e in range(len(a)):
        total += a[e] * b[e]
    return total


@njit(**INNER, fastmath=FUSED)
def _softmax(scores):
    """The scores become eˢ⁻ᵐ with the largest score m; returns their sum."""
    top = scores.dtype.type(-np.inf)
    for s in range(len(scores)):
        top = scores[s] if scores[s] > top else top
    total = scores.dtype.type(0)
    for s in range(len(scores)):
        e = exp(scores[s] - top)
        hidden = scores[s] if scores[s] != -np.inf else scores.dtype.type(0)  # NaN stays
        scores[s] = e if scores[s] > -np.inf else hidden
        total += scores[s]
    return total


@njit(**ENTRY)
def attend(q, keys, values, first, end, valid, scale, out):
    """A sequence and a head at a time."""
    B, Hq, d = q.shape
    G = Hq // keys.shape[1]
    scores = np.empty(end - first, q.dtype)
    for b in range(B):
        for h in range(Hq):
            for s in range(first, end):
                scores[s - first] = scale * _dot(q[b, h], keys[b, h // G, s])
                if len(valid) and not valid[b, s]:
                    scores[s - first] = -np.inf
            total = _softmax(scores)
            to = out[b, h]
            to[:] = 0
            for s in range(first, end):
                p = scores[s - first] / total
                row = values[b, h // G, s]
                for e in range(d):
                    to[e] += p * row[e]


def forward(
    q: Array, keys: Array, values: Array, keep: slice, valid: Array | None, scale: float
) -> Array:
    """`attend_numpy` of `moe_np.layers.attention_step`, equal to rounding."""
    out = np.empty(q.shape, q.dtype)
    hidden = np.empty((0, 0), bool) if valid is None else valid
    real = q.dtype.type
    arguments = (keep.start, keep.stop, read_only(hidden), real(scale), out)
    attend(read_only(q), keys, values, *arguments)
    return out
