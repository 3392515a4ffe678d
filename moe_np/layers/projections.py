"""Projections of attention: from tokens to queries, keys and values by head, and their gradients.

    y = x w + b,  then RMSNorm of y, or of each head of y,  then y clipped to [−c, c],
    then (B, T, H d) -> (B, T, H, d)

Norm and clipping are not always there. c is `clip_qkv` in OLMoE's config.json. The gradient passes
where |y| ≤ c, on the boundary too, as in PyTorch's clamp; elsewhere it is 0. The table of the
parameters is in `moe_np.layers.attention`.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayBTD, ArrayBTHd, DType, Rng
from moe_np.layers import norms, products

Tree = dict[str, Any]  # arrays by name; a norm of queries or keys is a dict in turn


class Projection(NamedTuple):
    """What the backward pass needs of a projection x w + b, of its norm and of its clipping."""

    letter: str
    x: ArrayBTD
    norm: norms.RmsCache | None
    inside: Annotated[np.ndarray, "B, T, H d"] | None  # where |y| ≤ c; None: y was not clipped


def init(
    rng: Rng,
    d_model: int,
    *,
    heads: int,
    kv_heads: int,
    d: int | None = None,
    biases: bool = False,
    norm: str = "none",
    dtype: DType = np.float64,
) -> Tree:
    """Matrices with standard deviation 1/√(number of inputs), biases 0, gains 1.

    d       width of a head; None: D / heads
    norm    of queries and keys: "none", "whole" (OLMoE) or "head" (Qwen3)
    """
    D = checks.size("d_model", d_model)
    _check_heads(heads, kv_heads)
    if d is None and D % heads:
        raise InputError(f"d_model: wanted a multiple of {heads} heads, got {D}")
    d = D // heads if d is None else checks.size("d", d)
    dtype = checks.float_type("dtype", dtype)
    checks.choice("norm", norm, ("none", "whole", "head"))
    params: Tree = {}
    for letter, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        params["w" + letter] = (rng.normal(size=(D, n * d)) / np.sqrt(D)).astype(dtype)
        if checks.boolean("biases", biases):
            params["b" + letter] = np.zeros(n * d, dtype)
        if norm != "none" and letter != "v":
            size = n * d if norm == "whole" else d
            params[letter + "_norm"] = norms.rms_init(size, dtype=dtype)
    params["wo"] = (rng.normal(size=(heads * d, D)) / np.sqrt(heads * d)).astype(dtype)
    return params


def rows(x: Array, w: Array, *, transposed: bool = False) -> Array:
    """x w (..., K) for x (..., D), or x wᵀ for w (K, D), as one product of matrices."""
    product = products.input_gradient if transposed else products.forward
    y = product(x.reshape(-1, x.shape[-1]), w)
    return y.reshape(*x.shape[:-1], y.shape[1])


def rows_backward(
    dy: Array, x: Array, w: Array, *, transposed: bool = False
) -> tuple[Array, Array]:
    """dy (..., K) -> dx (..., D), and dw, summed over all axes but the last."""
    dx = rows(dy, w, transposed=not transposed)
    dy = dy.reshape(-1, dy.shape[-1])
    x = x.reshape(-1, x.shape[-1])
    gradient = products.weight_gradient
    return dx, gradient(dy, x) if transposed else gradient(x, dy)


def project(
    params: Tree, x: ArrayBTD, letter: str, n_heads: int, eps: float, clip: float | None = None
) -> tuple[ArrayBTHd, Projection]:
    """x (B, T, D) -> queries, keys or values (B, T, H, d), and a Projection. Raises InputError
    where they are not finite before they are clipped: the softmax of scores that are not can be
    finite.

    clip   c, a number above 0, the largest absolute value behind the norm; None: no clipping
    """
    w = params["w" + letter]
    y = rows(x, w)
    if "b" + letter in params:
        y += params["b" + letter]
    norm = None
    if letter + "_norm" in params:
        gain = params[letter + "_norm"]
        size = len(gain["g"])
        groups = y.reshape(*y.shape[:2], y.shape[2] // size, size)  # one group, or one per head
        y, norm = norms.rms_forward(gain, groups, eps=eps)
    if not np.isfinite(y).all():
        raise InputError("x: wanted numbers for which the output is finite, got larger ones")
    y = y.reshape(*x.shape[:2], w.shape[1])
    inside = None
    if clip is not None:
        c = y.dtype.type(checks.number("clip_qkv", clip, greater_than=0))
        inside = np.abs(y) <= c
        y = np.clip(y, -c, c)
    heads = y.reshape(*x.shape[:2], n_heads, w.shape[1] // n_heads)
    return heads, Projection(letter, x, norm, inside)


def project_backward(params: Tree, dy: ArrayBTHd, projection: Projection) -> tuple[ArrayBTD, Tree]:
    """dy (B, T, H, d) -> dx (B, T, D), and the gradients of w, b and the norm."""
    letter, x, norm, inside = projection
    w = params["w" + letter]
    grads = {}
    if inside is not None:
        dy = np.where(inside, dy.reshape(inside.shape), dy.dtype.type(0))
    if norm is not None:
        dy, grads[letter + "_norm"] = norms.rms_backward(dy.reshape(norm.x.shape), norm)
    dy = dy.reshape(*x.shape[:2], w.shape[1])
    if "b" + letter in params:
        grads["b" + letter] = dy.sum(axis=(0, 1))
    dx, grads["w" + letter] = rows_backward(dy, x, w)
    return dx, grads


# --- checks ---------------------------------------------------------------------------------------


def _check_heads(heads, kv_heads):
    checks.size("heads", heads)
    checks.size("kv_heads", kv_heads)
    if heads % kv_heads:
        raise InputError(f"heads: wanted a multiple of {kv_heads} key heads, got {heads}")


def check(
    params: Tree, x: ArrayBTD, source: ArrayBTD, heads: int, kv_heads: int
) -> tuple[Tree, ArrayBTD, ArrayBTD]:
    """(params, x, source) as arrays that fit together; source is x, or the memory. Raises
    InputError for others.
    """
    _check_heads(heads, kv_heads)
    x = checks.array("x", x, ("B", "T", "D"))
    name = "memory" if source is not x else "x"
    checks.mapping("params", params, ("wq", "wk", "wv", "wo"))
    width = np.shape(params["wq"])[-1] if np.ndim(params["wq"]) else 0
    if not width or width % heads:
        raise InputError(f"params['wq']: wanted {heads} heads side by side, got {width} columns")
    query = width
    key = width // heads * kv_heads
    wk = checks.array("params['wk']", params["wk"], ("D", "Hk d"), finite=False)
    source = checks.array(name, source, (x.shape[0], "S", len(wk)))
    axes = {"wq": (x.shape[2], query), "wk": (source.shape[2], key)}
    axes |= {"wv": (source.shape[2], key), "wo": (query, x.shape[2])}
    axes |= {b: (n,) for b, n in (("bq", query), ("bk", key), ("bv", key)) if b in params}
    arrays: Tree = dict(checks.params("params", params, axes, finite=False))
    for norm, size in (("q_norm", query), ("k_norm", key)):
        if norm in params:
            arrays[norm] = checks.params(f"params[{norm!r}]", params[norm], {"g": ("size",)})
            n = len(arrays[norm]["g"])
            if n not in (size, width // heads):
                raise InputError(
                    f"params[{norm!r}]['g']: wanted {size} or {width // heads} gains, got {n}"
                )
    unknown = set(params) - set(arrays)
    if unknown:
        raise InputError(f"params: wanted no other keys, got {', '.join(sorted(unknown))}")
    for what, a in (("x", x), (name, source)):
        if a.dtype != arrays["wq"].dtype:
            raise InputError(f"{what}: wanted {arrays['wq'].dtype}, as wq, got {a.dtype}")
    return {name: arrays[name] for name in params}, x, source
