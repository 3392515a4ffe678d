"""Normalisation layers: RMSNorm, also with the residual before it, and layer normalisation.

RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4; here with ε inside of the root, as in
T5, LLaMA and Mixtral), and layer normalisation (Ba et al. 2016, arXiv 1607.06450, eq. 4), row by
row over the last axis:

    RMSNorm       r = 1 / √(mean(x²) + ε),            y = g · x r
    LayerNorm     r = 1 / √(mean((x − μ)²) + ε),      y = g · (x − μ) r + b,       μ = mean(x)

    paper    here     shape       meaning
    a        x        (..., D)    input, with any number of axes in front
    g        g        (D,)        gain, 1 at initialisation
    b        b        (D,)        bias, 0 at initialisation
    1/RMS    r        (...)       one number per row

RMSNorm subtracts no mean and has no bias. With Numba it runs in `moe_np.kernels.norms`.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayD, DType, Params

Rows = Annotated[np.ndarray, "..., D"]


class RmsCache(NamedTuple):
    """What the backward pass of RMSNorm needs."""

    x: Rows
    g: ArrayD
    r: Annotated[np.ndarray, "..."]


class LayerNormCache(NamedTuple):
    """What the backward pass of layer normalisation needs."""

    normalised: Rows  # (x − μ) r
    g: ArrayD
    r: Annotated[np.ndarray, "..."]


def rms_init(d_model: int, *, dtype: DType = np.float64) -> Params:
    """{"g": (D,)} of ones."""
    return {"g": np.ones(checks.size("d_model", d_model), checks.float_type("dtype", dtype))}


def layer_norm_init(d_model: int, *, dtype: DType = np.float64) -> Params:
    """{"g": (D,) of ones, "b": (D,) of zeros}."""
    gain = rms_init(d_model, dtype=dtype)
    return {**gain, "b": np.zeros_like(gain["g"])}


# --- RMSNorm --------------------------------------------------------------------------------------


def rms_forward(params: Params, x: Rows, *, eps: float) -> tuple[Rows, RmsCache]:
    """y = g · x / √(mean(x²) + ε): x (..., D) -> (y (..., D), cache).

    Raises InputError for x that is not finite, or so large that its squares are not.
    """
    x, arrays = _check(params, x, eps, ("g",))
    _, y, r = _add_and_norm(arrays["g"], x, None, eps)
    _check_root(x, r)
    return y, RmsCache(x, arrays["g"], r)


def rms_forward_numpy(g: ArrayD, x: Rows, eps: float) -> tuple[Rows, Array]:
    """`rms_forward` in NumPy, without the checks: -> y (..., D), r (...)."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean = np.einsum("...d,...d->...", x, x) / x.dtype.type(x.shape[-1])
        r = (1 / np.sqrt(mean + eps)).astype(x.dtype, copy=False)
        return x * r[..., None] * g, r


def rms_backward(dy: Rows, cache: RmsCache) -> tuple[Rows, Params]:
    """dy (..., D) -> dx (..., D), {"g"}.

    With u = dy · g:  dx = r u − x r³ mean(u x),  dg = Σ dy · x r over all rows.
    """
    return _rms_backward(dy, None, cache)


def rms_backward_numpy(dy: Rows, cache: RmsCache) -> tuple[Rows, ArrayD]:
    """`rms_backward` in NumPy, without the checks."""
    x, g, r = cache
    unit = x * r[..., None]
    dg = (dy * unit).reshape(-1, x.shape[-1]).sum(axis=0)
    u = dy * g
    mean = np.einsum("...d,...d->...", u, unit) / x.dtype.type(x.shape[-1])
    return r[..., None] * (u - unit * mean[..., None]), dg


# --- residual and RMSNorm -------------------------------------------------------------------------


def add_rms_forward(
    params: Params, x: Rows, branch: Rows, *, eps: float
) -> tuple[Rows, Rows, RmsCache]:
    """The residual and the norm after it: s = x + branch, y = RMSNorm(s) -> (s, y, cache).

    The sum is a new array: x += branch would change what other backward passes need.
    """
    x, arrays = _check(params, x, eps, ("g",))
    branch = checks.array("branch", branch, x.shape, finite=False).astype(x.dtype, copy=False)
    total, y, r = _add_and_norm(arrays["g"], x, branch, eps)
    _check_root(total, r, "x + branch")
    return total, y, RmsCache(total, arrays["g"], r)


def add_rms_backward(dtotal: Rows, dy: Rows, cache: RmsCache) -> tuple[Rows, Params]:
    """dtotal, the gradient of s that comes past the norm, and dy -> ds (..., D), {"g"}.

    ds is the gradient of x and of branch, both.
    """
    dtotal = checks.array("dtotal", dtotal, cache.x.shape, finite=False)
    return _rms_backward(dy, dtotal.astype(cache.x.dtype, copy=False), cache)


def _add_and_norm(g, x, branch, eps):
    """s = x + branch (None: s = x), its norm and r."""
    if kernels.compiled(x.dtype) and x.size:
        rows = None if branch is None else branch.reshape(-1, len(g))
        total, y, r = kernels.norms.forward(g, x.reshape(-1, len(g)), rows, eps)
        return total.reshape(x.shape), y.reshape(x.shape), r.reshape(x.shape[:-1])
    with np.errstate(over="ignore", invalid="ignore"):
        total = x if branch is None else x + branch
    return total, *rms_forward_numpy(g, total, eps)


def _rms_backward(dy, dtotal, cache):
    x, g, r = cache
    dy = checks.array("dy", dy, x.shape, finite=False).astype(x.dtype, copy=False)
    if kernels.compiled(x.dtype) and x.size:
        past = None if dtotal is None else dtotal.reshape(-1, len(g))
        rows = (dy.reshape(-1, len(g)), past, x.reshape(-1, len(g)))
        dx, dg = kernels.norms.backward(*rows, g, r.ravel())
        return dx.reshape(x.shape), {"g": dg}
    dx, dg = rms_backward_numpy(dy, cache)
    return dx if dtotal is None else dtotal + dx, {"g": dg}


# --- layer normalisation --------------------------------------------------------------------------


def layer_norm_forward(params: Params, x: Rows, *, eps: float) -> tuple[Rows, LayerNormCache]:
    """y = g · (x − μ) / √(mean((x − μ)²) + ε) + b: x (..., D) -> (y (..., D), cache)."""
    x, arrays = _check(params, x, eps, ("g", "b"))
    with np.errstate(over="ignore", invalid="ignore"):
        centred = x - x.mean(axis=-1, keepdims=True)
    unit, r = rms_forward_numpy(np.ones_like(arrays["g"]), centred, eps)
    _check_root(x, r)
    return unit * arrays["g"] + arrays["b"], LayerNormCache(unit, arrays["g"], r)


def layer_norm_backward(dy: Rows, cache: LayerNormCache) -> tuple[Rows, Params]:
    """dy (..., D) -> dx (..., D), {"g", "b"}.

    With u = dy · g and n = (x − μ) r:  dx = r (u − mean(u) − n mean(u n)).
    """
    unit, g, r = cache
    dy = checks.array("dy", dy, unit.shape, finite=False).astype(unit.dtype, copy=False)
    u = dy * g
    centred = u - u.mean(axis=-1, keepdims=True)
    dx = r[..., None] * (centred - unit * (u * unit).mean(axis=-1, keepdims=True))
    rows = dy.reshape(-1, len(g))
    return dx, {"g": (rows * unit.reshape(-1, len(g))).sum(axis=0), "b": rows.sum(axis=0)}


# --- checks ---------------------------------------------------------------------------------------


def _check(params, x, eps, keys):
    """x and the parameters as arrays that fit together; whether x is finite is seen later."""
    checks.number("eps", eps, minimum=0)
    arrays = checks.params("params", params, dict.fromkeys(keys, ("D",)))
    g = arrays["g"]
    x = checks.array("x", x, None, finite=False)
    if x.ndim == 0 or x.shape[-1] != len(g) or x.dtype != g.dtype or not len(g):
        wanted = f"{len(g)} features per row in {g.dtype}"
        raise InputError(f"x: wanted {wanted}, got shape {x.shape} in {x.dtype}")
    return x, arrays


def _check_root(x, r, name="x"):
    """Check that x is finite, from r: an infinity in x makes it 0, a NaN makes it NaN."""
    if not (r > 0).all() or not np.isfinite(r).all():
        checks.array(name, x, x.shape)
        if (r == 0).any():
            raise InputError(f"{name}: wanted numbers whose squares are finite, got larger ones")
        raise InputError("eps: wanted a number above 0 for rows that are all 0, got 0")
