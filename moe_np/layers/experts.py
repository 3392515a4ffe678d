"""Stacked experts: E copies of one small network, each with parameters of its own, on rows sorted
by expert.

    here       shape             meaning
    rows       (A, D)            what the experts read, sorted: the tokens of expert 0, then those of expert 1, ...
    offsets    (E + 1,)          expert m owns rows[offsets[m]:offsets[m + 1]], possibly none
    y          (A, D_out)        the experts' outputs, in the same order
    params     {name: (E, ...)}  axis 0 is the expert

An `Expert` is what the layer needs to know of a kind of expert:

    init(rng, d_model, n_experts, ...)          -> params
    forward(params, rows, offsets)              -> (y, cache)
    backward(dy, cache)                         -> (drows, grads)

Every expert is a pair like any other, and knows nothing of routers, weights or tokens.

**Shared parameters.** A parameter whose axis 0 has length 1 is common to all experts (`share=("w1",
"b1")` in `init`: a common first layer). Its gradient is the sum of what the experts would have got,
so nothing else changes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import erf

from moe_np.base import checks, numerics


class Expert(NamedTuple):
    init: Callable
    forward: Callable
    backward: Callable
    features: Callable | None = None  # features(params): the size of the last axis of rows
    kernel: tuple | None = (
        None  # its name in `moe_np.kernels.sparse_layer`, and what makes a cache of the arrays there
    )


def blocks(offsets):
    """The experts that have rows, each with its slice of them."""
    for m in range(len(offsets) - 1):
        if offsets[m] < offsets[m + 1]:
            yield m, slice(offsets[m], offsets[m + 1])


def each(params, name, offsets):
    """params[name] with one entry an expert: a shared one is repeated, without a copy."""
    p = params[name]
    return np.broadcast_to(p, (len(offsets) - 1, *p.shape[1:]))


def fold(grads, params):
    """Gradients of one entry an expert, summed where the parameter is shared."""
    return {
        k: g if len(params[k]) == len(g) else g.sum(axis=0, keepdims=True) for k, g in grads.items()
    }


def normal(rng, shapes, n_experts, scale, share, dtype):
    """{name: (E, fan_in, fan_out) normal with deviation scale/√fan_in, or (E, n) zeros}; axis 0 is
    1 where shared.
    """
    E = checks.integer("n_experts", n_experts)
    for name in share:
        checks.choice("share", name, tuple(shapes))
    params = {}
    for name, shape in shapes.items():
        shape = (1 if name in share else E, *(checks.integer("size", n) for n in shape))
        w = (
            rng.normal(size=shape) * (scale / np.sqrt(shape[1]))
            if len(shape) == 3
            else np.zeros(shape)
        )
        params[name] = w.astype(dtype)
    return params


# --- linear ---------------------------------------------------------------------------------------


class LinearCache(NamedTuple):
    params: dict
    rows: np.ndarray  # (A, D)
    offsets: np.ndarray  # (E + 1,)


def linear_init(rng, d_model, n_experts, d_out=None, *, scale=1.0, share=(), dtype=np.float64):
    """{"w": (E, D, D_out), "b": (E, D_out)}: w normal with standard deviation scale/√D, b zero."""
    d_out = d_model if d_out is None else d_out
    return normal(rng, {"w": (d_model, d_out), "b": (d_out,)}, n_experts, scale, share, dtype)


def linear_forward(params, rows, offsets):
    """y = x W_m + b_m for the rows x of expert m."""
    w, b = (each(params, name, offsets) for name in ("w", "b"))
    y = np.empty((len(rows), w.shape[2]), rows.dtype)
    for m, own in blocks(offsets):
        y[own] = rows[own] @ w[m] + b[m]
    return y, LinearCache(params, rows, offsets)


def linear_backward(dy, cache):
    """dy (A, D_out) -> drows = dy W_mᵀ, {"w": Σ xᵀ dy, "b": Σ dy}."""
    params, rows, offsets = cache
    w = each(params, "w", offsets)
    drows = np.empty_like(rows)
    grads = {"w": np.zeros(w.shape, w.dtype), "b": np.zeros((len(w), w.shape[2]), w.dtype)}
    for m, own in blocks(offsets):
        grads["w"][m] = rows[own].T @ dy[own]
        grads["b"][m] = dy[own].sum(axis=0)
        drows[own] = dy[own] @ w[m].T
    return drows, fold(grads, params)


# --- two layers with ReLU or GELU -----------------------------------------------------------------

SQRT_HALF, SQRT_HALF_PI = 0.5**0.5, (0.5 / np.pi) ** 0.5


def relu(z):
    return np.maximum(z, 0)


def relu_backward(dh, z):
    """dz = dh where z > 0. At z = 0 the derivative is taken as 0."""
    return dh * (z > 0)


def gelu(z):
    """z Φ(z), Φ the normal distribution function, by the exact erf (SciPy's), not the tanh
    approximation.
    """
    return z * (0.5 * (1 + erf(z * SQRT_HALF)))


def gelu_backward(dh, z):
    """dz = dh (Φ(z) + z φ(z)), φ the normal density."""
    density = np.exp(-0.5 * z * z) * SQRT_HALF_PI
    return dh * (0.5 * (1 + erf(z * SQRT_HALF)) + z * density)


ACTIVATIONS = {"relu": (relu, relu_backward), "gelu": (gelu, gelu_backward)}


class MlpCache(NamedTuple):
    params: dict
    rows: np.ndarray  # (A, D)
    offsets: np.ndarray  # (E + 1,)
    # (A, H)  before the activation; the compiled ReLU gives max(z, 0), which serves as well
    z: np.ndarray
    activation: str


def mlp_init(rng, d_model, n_experts, hidden, d_out=None, *, scale=1.0, share=(), dtype=np.float64):
    """{"w1": (E, D, H), "b1": (E, H), "w2": (E, H, D_out), "b2": (E, D_out)}.

    Weights are normal with deviation scale/√fan_in, biases zero. `share` names what all experts
    hold in common.
    """
    d_out = d_model if d_out is None else d_out
    shapes = {"w1": (d_model, hidden), "b1": (hidden,), "w2": (hidden, d_out), "b2": (d_out,)}
    return normal(rng, shapes, n_experts, scale, share, dtype)


def mlp_forward(params, rows, offsets, *, activation):
    """y = act(x W1_m + b1_m) W2_m + b2_m for the rows x of expert m."""
    w1, b1, w2, b2 = (each(params, name, offsets) for name in ("w1", "b1", "w2", "b2"))
    act, _ = ACTIVATIONS[activation]
    z = np.empty((len(rows), w1.shape[2]), rows.dtype)
    y = np.empty((len(rows), w2.shape[2]), rows.dtype)
    for m, own in blocks(offsets):
        z[own] = rows[own] @ w1[m] + b1[m]
        y[own] = act(z[own]) @ w2[m] + b2[m]
    return y, MlpCache(params, rows, offsets, z, activation)


def mlp_backward(dy, cache):
    """dy (A, D_out) -> drows (A, D), {"w1", "b1", "w2", "b2"}."""
    params, rows, offsets, z, activation = cache
    w1, w2 = each(params, "w1", offsets), each(params, "w2", offsets)
    act, act_backward = ACTIVATIONS[activation]
    drows = np.empty_like(rows)
    grads = {
        name: np.zeros(each(params, name, offsets).shape, p.dtype) for name, p in params.items()
    }
    for m, own in blocks(offsets):
        grads["w2"][m] = act(z[own]).T @ dy[own]
        grads["b2"][m] = dy[own].sum(axis=0)
        dz = act_backward(dy[own] @ w2[m].T, z[own])
        grads["w1"][m] = rows[own].T @ dz
        grads["b1"][m] = dz.sum(axis=0)
        drows[own] = dz @ w1[m].T
    return drows, fold(grads, params)


# --- SwiGLU ---------------------------------------------------------------------------------------


class SwigluCache(NamedTuple):
    params: dict
    rows: np.ndarray  # (A, D)
    offsets: np.ndarray  # (E + 1,)
    a: np.ndarray  # (A, H)  x W1, goes through silu
    b: np.ndarray  # (A, H)  x W3, is multiplied


def swiglu_init(
    rng, d_model, n_experts, hidden, d_out=None, *, scale=1.0, share=(), dtype=np.float64
):
    """{"w1": (E, D, H), "w3": (E, D, H), "w2": (E, H, D_out)}, Mixtral's names; deviation
    scale/√fan_in, no biases.
    """
    d_out = d_model if d_out is None else d_out
    shapes = {"w1": (d_model, hidden), "w3": (d_model, hidden), "w2": (hidden, d_out)}
    return normal(rng, shapes, n_experts, scale, share, dtype)


def swiglu_forward(params, rows, offsets):
    """y = (silu(x W1_m) ⊙ x W3_m) W2_m, silu(a) = a σ(a) (Shazeer 2020, arXiv 2002.05202, eq. 6)."""
    w1, w3, w2 = (each(params, name, offsets) for name in ("w1", "w3", "w2"))
    a = np.empty((len(rows), w1.shape[2]), rows.dtype)
    b, y = np.empty_like(a), np.empty((len(rows), w2.shape[2]), rows.dtype)
    for m, own in blocks(offsets):
        a[own] = rows[own] @ w1[m]
        b[own] = rows[own] @ w3[m]
        y[own] = (a[own] * numerics.sigmoid(a[own]) * b[own]) @ w2[m]
    return y, SwigluCache(params, rows, offsets, a, b)


def swiglu_backward(dy, cache):
    """dy (A, D_out) -> drows (A, D), {"w1", "w3", "w2"}. silu'(a) = σ(a) (1 + a (1 − σ(a)))."""
    params, rows, offsets, a, b = cache
    w1, w3, w2 = (each(params, name, offsets) for name in ("w1", "w3", "w2"))
    drows = np.empty_like(rows)
    grads = {
        name: np.zeros(each(params, name, offsets).shape, p.dtype) for name, p in params.items()
    }
    for m, own in blocks(offsets):
        dh, s = dy[own] @ w2[m].T, numerics.sigmoid(a[own])
        grads["w2"][m] = (a[own] * s * b[own]).T @ dy[own]
        da = dh * b[own] * s * (1 + a[own] * (1 - s))
        db = dh * a[own] * s
        grads["w1"][m] = rows[own].T @ da
        grads["w3"][m] = rows[own].T @ db
        drows[own] = da @ w1[m].T + db @ w3[m].T
    return drows, fold(grads, params)


# --- cubic patches --------------------------------------------------------------------------------


class CubicCache(NamedTuple):
    params: dict
    rows: np.ndarray  # (A, P, D)
    offsets: np.ndarray  # (E + 1,)
    z: np.ndarray  # (A, P, 2J)  what each filter sees in each patch


def cubic_init(rng, patch_len, n_experts, filters, *, scale=1.0, share=(), dtype=np.float64):
    """{"w": (E, 2J, D), "b": (E, 2J)}, both U(−1/√D, 1/√D) times scale. `filters` is J, those of
    one class.
    """
    E, F = checks.integer("n_experts", n_experts), 2 * checks.integer("filters", filters)
    D = checks.integer("patch_len", patch_len)
    bound = scale / np.sqrt(D)
    w = rng.uniform(-bound, bound, (1 if "w" in share else E, F, D))
    b = rng.uniform(-bound, bound, (1 if "b" in share else E, F))
    return {"w": w.astype(dtype), "b": b.astype(dtype)}


def cubic_forward(params, rows, offsets):
    """f_c = Σ_p Σ_{j in class c} (w_j·x_p + b_j)³ (Chen et al. 2022, section 3): rows (A, P, D) ->
    f (A, 2).

    The expert of `moe_np.models.patch_cnn`, behind the door of this file.
    """
    w, b = each(params, "w", offsets), each(params, "b", offsets)
    z = np.empty((*rows.shape[:2], w.shape[1]), rows.dtype)
    for m, own in blocks(offsets):
        z[own] = rows[own] @ w[m].T + b[m]
    f = (z * z * z).sum(axis=1).reshape(len(rows), 2, w.shape[1] // 2).sum(axis=2)
    return f, CubicCache(params, rows, offsets, z)


def cubic_backward(df, cache):
    """df (A, 2) -> drows (A, P, D), {"w", "b"}: dz = 3 z² df_class."""
    params, rows, offsets, z = cache
    w = each(params, "w", offsets)
    dz = 3 * z * z * np.repeat(df, w.shape[1] // 2, axis=1)[:, None, :]
    drows = np.empty_like(rows)
    grads = {"w": np.zeros(w.shape, w.dtype), "b": np.zeros(w.shape[:2], w.dtype)}
    for m, own in blocks(offsets):
        grads["w"][m] = np.tensordot(dz[own], rows[own], axes=((0, 1), (0, 1)))
        grads["b"][m] = dz[own].sum(axis=(0, 1))
        drows[own] = dz[own] @ w[m]
    return drows, fold(grads, params)


def _size_of(name, axis):
    return lambda params: params[name].shape[axis]


def _mlp(activation):
    def cache_of(params, rows, offsets, z, _):
        return MlpCache(params, rows, offsets, z, activation)

    forward = functools.partial(mlp_forward, activation=activation)
    return Expert(mlp_init, forward, mlp_backward, _size_of("w1", 1), (activation, cache_of))


LINEAR = Expert(linear_init, linear_forward, linear_backward, _size_of("w", 1))
RELU, GELU = _mlp("relu"), _mlp("gelu")
SWIGLU = Expert(
    swiglu_init, swiglu_forward, swiglu_backward, _size_of("w1", 1), ("swiglu", SwigluCache)
)
CUBIC = Expert(cubic_init, cubic_forward, cubic_backward, _size_of("w", 2))
