"""An LSTM layer that attends to another sequence at every step: the first layer of a decoder for
translation (Wu et al. 2016, arXiv 1609.08144, section 3; the score of Shazeer et al. 2017, arXiv
1701.06538, appendix E).

    score_ts = Σ_n v_n tanh(x_s U)_n tanh(h_{t−1} W)_n
    a_t = softmax of score_t over the valid positions s,     r_t = Σ_s a_ts x_s
    h_t = LSTM([y_t; r_t])                                   its equations are in layers/lstm.py

    paper    here      shape             meaning
    x_i      memory    (B, S, D)         the encoder's output
    y_j      h         (B, T, P)         the output of this layer, one step before
    U        u         (D, n)
    W        w         (P, n)
    V        v         (n,)
    –        y         (B, T, D')        inputs, such as embeddings of the target
    –        k         (B, S, n)         v · tanh(x U), the same for all steps
    –        q         (T, B, n)         tanh(h_{t−1} W)
    –        a         (T, B, S)         attention, exactly 0 at padding
    –        context   (B, T, D)         r_t, which the layers above read too

wx has the rows of y first, then those of the context.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import ArrayBTD, DType, Params, Rng
from moe_np.layers import lstm, products

ArrayBSD = Annotated[np.ndarray, "B, S, D"]
ArrayBS = Annotated[np.ndarray, "B, S"]
ArrayBTP = Annotated[np.ndarray, "B, T, P"]


class Keys(NamedTuple):
    """What attention computes of the memory once for all steps."""

    memory: ArrayBSD
    valid: ArrayBS  # bool
    tanh_u: Annotated[np.ndarray, "B, S, n"]  # tanh(memory u)
    k: Annotated[np.ndarray, "B, S, n"]


class Cache(NamedTuple):
    """What the backward pass needs. Time is axis 0."""

    params: Params
    keys: Keys
    inputs: Annotated[np.ndarray, "T, B, D' + D"]  # [y_t; r_t]
    h: Annotated[np.ndarray, "T + 1, B, P"]
    c: Annotated[np.ndarray, "T + 1, B, H"]
    gates: Annotated[np.ndarray, "T, B, 4 H"]
    tanh_c: Annotated[np.ndarray, "T, B, H"]
    m: Annotated[np.ndarray, "T, B, H"]
    q: Annotated[np.ndarray, "T, B, n"]
    a: Annotated[np.ndarray, "T, B, S"]


def init(
    rng: Rng,
    d_model: int,
    d_memory: int,
    hidden: int,
    projection: int | None = None,
    *,
    d_attention: int | None = None,
    dtype: DType = np.float64,
) -> Params:
    """Those of `lstm.init` for inputs of d_model + d_memory, and "u" (D, n), "w" (P, n), "v" (n,).

    n is d_attention, or the size of the output. v is 1: at first, every feature counts alike.
    """
    D = checks.size("d_memory", d_memory)
    params = lstm.init(rng, d_model + D, hidden, projection, dtype=dtype)
    P = params["wh"].shape[0]
    n = P if d_attention is None else checks.size("d_attention", d_attention)
    u = (rng.normal(size=(D, n)) / np.sqrt(D)).astype(dtype)
    w = (rng.normal(size=(P, n)) / np.sqrt(P)).astype(dtype)
    return {**params, "u": u, "w": w, "v": np.ones(n, dtype)}


@one_blas_thread()
def keys_of(params: Params, memory: ArrayBSD, valid: ArrayBS | None = None) -> Keys:
    """memory (B, S, D) -> Keys. valid (B, S): False at padding, to which nothing attends."""
    memory = checks.array("memory", memory, ("B", "S", len(params["u"])))
    if valid is None:
        valid = np.ones(memory.shape[:2], bool)
    valid = checks.mask("valid", valid, memory.shape[:2])
    tanh_u = np.tanh(memory @ params["u"])
    return Keys(memory, valid, tanh_u, tanh_u * params["v"])


@one_blas_thread()
def forward(
    params: Params, y: ArrayBTD, keys: Keys, state: lstm.State | None = None
) -> tuple[ArrayBTP, ArrayBTD, lstm.State, Cache]:
    """y (B, T, D'), keys of the memory -> (h (B, T, P), context (B, T, D), the state after the last
    step, cache).

    state   before the first step; None: zeros

    A sequence without a valid position in the memory has a context of exactly 0.
    """
    y, wx, state = _check(params, y, keys, state)
    B, T, D_y = y.shape
    P, H4 = params["wh"].shape
    S, D = keys.memory.shape[1:]
    inputs = np.empty((T, B, D_y + D), y.dtype)
    inputs[:, :, :D_y] = y.transpose(1, 0, 2)
    zy = products.forward(inputs[:, :, :D_y].reshape(T * B, D_y), wx[:D_y]) + params["b"]
    zy = zy.reshape(T, B, H4)
    h = np.empty((T + 1, B, P), y.dtype)
    c = np.empty((T + 1, B, H4 // 4), y.dtype)
    h[0], c[0] = state
    gates = np.empty_like(zy)
    tanh_c = np.empty_like(c[1:])
    m = np.empty_like(tanh_c) if "wp" in params else h[1:]
    q = np.empty((T, B, keys.k.shape[2]), y.dtype)
    a = np.empty((T, B, S), y.dtype)
    for t in range(T):
        q[t] = np.tanh(h[t] @ params["w"])
        scores = (keys.k @ q[t][:, :, None])[:, :, 0]
        a[t] = numerics.softmax(np.where(keys.valid, scores, -np.inf)) if S else 0
        context = (a[t][:, None] @ keys.memory)[:, 0]
        inputs[t, :, D_y:] = context
        z = zy[t] + context @ wx[D_y:] + h[t] @ params["wh"]
        c[t + 1], m[t], gates[t], tanh_c[t] = lstm.cell_forward(z, c[t])
        if "wp" in params:
            h[t + 1] = m[t] @ params["wp"]
    out, context = (np.ascontiguousarray(v.transpose(1, 0, 2)) for v in (h[1:], inputs[:, :, D_y:]))
    cache = Cache(params, keys, inputs, h, c, gates, tanh_c, m, q, a)
    return out, context, lstm.State(h[T].copy(), c[T].copy()), cache


@one_blas_thread()
def backward(dh: ArrayBTP, dcontext: ArrayBTD, cache: Cache) -> tuple[ArrayBTD, ArrayBSD, Params]:
    """dh (B, T, P), dcontext (B, T, D) -> (dy (B, T, D'), dmemory (B, S, D), the gradients of all
    parameters). The gradient of the state before the first step is left out.
    """
    params, keys, inputs, h, c, gates, tanh_c, m, q, a = cache
    T, B, H4 = gates.shape
    P = h.shape[2]
    D = keys.memory.shape[2]
    D_y = inputs.shape[2] - D
    dtype = inputs.dtype
    dh = checks.array("dh", dh, (B, T, P), finite=False).transpose(1, 0, 2)
    dh = dh.astype(dtype, order="C")  # copies, to which each step adds what comes from the next
    dcontext = checks.array("dcontext", dcontext, (B, T, D), finite=False).transpose(1, 0, 2)
    dcontext = dcontext.astype(dtype, order="C")
    dz = np.empty_like(gates)
    dscores = np.empty_like(a)
    dpre = np.empty_like(q)  # the gradient at h_{t−1} w
    dh_next, dc = lstm.zero_state(params, B)
    for t in reversed(range(T)):
        dh[t] += dh_next
        dm = dh[t] @ params["wp"].T if "wp" in params else dh[t]
        dz[t], dc = lstm.cell_backward(dm, dc, c[t], gates[t], tanh_c[t])
        dcontext[t] += dz[t] @ params["wx"][D_y:].T
        da = (keys.memory @ dcontext[t][:, :, None])[:, :, 0]
        dscores[t] = numerics.softmax_backward(da, a[t])
        dq = (dscores[t][:, None] @ keys.k)[:, 0]
        dpre[t] = dq * (1 - q[t] * q[t])
        dh_next = dz[t] @ params["wh"].T + dpre[t] @ params["w"].T

    before, rows = (v.reshape(T * B, v.shape[2]) for v in (h[:T], dz))
    grads = {
        "wx": products.weight_gradient(inputs.reshape(T * B, D_y + D), rows),
        "wh": products.weight_gradient(before, rows),
        "b": rows.sum(axis=0),
        "w": products.weight_gradient(before, dpre.reshape(T * B, q.shape[2])),
    }
    if "wp" in params:
        grads["wp"] = products.weight_gradient(m.reshape(T * B, H4 // 4), dh.reshape(T * B, P))
    dmemory, of_keys = _keys_backward(dcontext, dscores, cache)
    dy = products.input_gradient(rows, params["wx"][:D_y])
    dy = dy.reshape(T, B, D_y).transpose(1, 0, 2)
    return np.ascontiguousarray(dy), dmemory, {**grads, **of_keys}


def _keys_backward(dcontext, dscores, cache):
    """The gradients of all steps together at the memory, u and v."""
    params, keys, q, a = cache.params, cache.keys, cache.q, cache.a
    dmemory = a.transpose(1, 2, 0) @ dcontext.transpose(1, 0, 2)
    dk = dscores.transpose(1, 2, 0) @ q.transpose(1, 0, 2)
    dv = (dk * keys.tanh_u).sum(axis=(0, 1))
    du = dk * params["v"] * (1 - keys.tanh_u * keys.tanh_u)  # the gradient at memory u
    D, n = params["u"].shape
    grads = {"u": keys.memory.reshape(-1, D).T @ du.reshape(-1, n), "v": dv}
    return dmemory + du @ params["u"].T, grads


def _check(params, y, keys, state):
    """y, wx and the state before the first step, after checking all shapes and types."""
    arrays = lstm.check_params("params", params)
    wx = arrays["wx"]
    D = keys.memory.shape[2]
    if len(wx) <= D:
        raise InputError(
            f"params['wx']: wanted more than {D} rows, those of the memory, got {len(wx)}"
        )
    P, n = len(arrays["wh"]), keys.k.shape[2]
    checks.array("params['w']", params["w"], (P, n))
    y = checks.array("y", y, (len(keys.memory), "T", len(wx) - D))
    for name, value in (("y", y), ("memory", keys.memory)):
        if value.dtype != wx.dtype:
            raise InputError(
                f"{name}: wanted {wx.dtype}, the type of the parameters, got {value.dtype}"
            )
    return y, wx, lstm.check_state(state, arrays, len(y))
