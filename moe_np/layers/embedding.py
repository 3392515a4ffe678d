"""Token embedding: a row of a matrix per token number.

    x_n = w[ids_n],      dw_v = Σ_{n: ids_n = v} dx_n

    name    shape     meaning
    w       (V, D)    one row per entry of the vocabulary
    ids     (...)     token numbers, 0 to V − 1, with any number of axes
    x       (..., D)

Where the head of a model is tied (Press and Wolf 2017, arXiv 1608.05859), the same matrix gives the
logits, x wᵀ. Its gradient is the sum of both sides: what `backward` returns here, plus that of the
head.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, DType, Params, Rng


class Cache(NamedTuple):
    """What the backward pass needs."""

    ids: Annotated[np.ndarray, "..."]
    vocabulary: int


def init(
    rng: Rng, vocabulary: int, d_model: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (V, D)}, normal with standard deviation `scale`."""
    rng = checks.generator("rng", rng)
    shape = (checks.size("vocabulary", vocabulary), checks.size("d_model", d_model))
    scale = checks.number("scale", scale, minimum=0)
    return {"w": (scale * rng.normal(size=shape)).astype(checks.float_type("dtype", dtype))}


def forward(params: Params, ids: Annotated[np.ndarray, "..."]) -> tuple[Array, Cache]:
    """x = w[ids]: token numbers (...) -> (x (..., D), cache).

    Raises InputError for a number outside of 0 to V − 1: NumPy would read a negative one from the
    end.
    """
    w = checks.mapping("params", params, ["w"])["w"]
    w = checks.array("params['w']", w, ("V", "D"), finite=False)
    ids = checks.array("ids", ids, None, kind="i")
    if ids.size and (ids.min() < 0 or ids.max() >= len(w)):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise InputError(f"ids: wanted token numbers from 0 to {len(w) - 1}, got {bad}")
    x = checks.array("params['w'][ids]", w[ids], None)  # of w only the rows that are read
    return x, Cache(ids, len(w))


def backward(dx: Annotated[np.ndarray, "..., D"], cache: Cache) -> Params:
    """dx (..., D) -> {"w": (V, D)}. The rows of a token that occurs several times are added up.

    The rows are sorted by token first: `dw[ids] += dx` would keep only one row per token (errata
    12), and `np.add.at` takes several times longer.
    """
    dx = checks.array("dx", dx, (*cache.ids.shape, "D"), finite=False)
    dw = np.zeros((cache.vocabulary, dx.shape[-1]), dx.dtype)
    ids = cache.ids.ravel()
    if ids.size:
        order = np.argsort(ids, kind="stable")
        present, start = np.unique(ids[order], return_index=True)
        dw[present] = np.add.reduceat(dx.reshape(ids.size, -1)[order], start, axis=0)
    return {"w": dw}
