"""Long short-term memory, an LSTM layer, with a projection of its output and backpropagation
through time.

    z_t = x_t wx + h_{t−1} wh + b                        four parts of H: i, f, g, o in this order
    i, f, o = σ(z),  g = tanh(z)                         input, forget, new content, output
    c_t = f · c_{t−1} + i · g
    m_t = o · tanh(c_t),   h_t = m_t wp                  without "wp": h_t = m_t

    here    shape            meaning
    x       (B, T, D)        sequences
    wx, wh  (D, 4H), (P, 4H) parameters, with b (4H,) and, for a projection, wp (H, P)
    h       (B, T, P)        outputs; P = H without a projection
    c       (T + 1, B, H)    cells, the one before the first step included

Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000 and the projection of Sak
et al. 2014 (arXiv 1402.1128, eqs. 1 to 6, without peepholes), which changes the size of h only. The
order of the gates is PyTorch's; TensorFlow's is i, g, f, o, and its cell adds 1 to the forget gate.
`init` sets the forget gate's bias to 1, and nothing is added later.

Truncated backpropagation through time passes the final state on to the next stretch of text and
drops the gradient of the initial one: `backward` returns it, and it is left out. Where another text
begins, the state is zero.

With Numba the recurrence runs in `moe_np.kernels.lstm`.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import ArrayBTD, DType, Params, Rng
from moe_np.layers import products

ArrayBP = Annotated[np.ndarray, "B, P"]
ArrayBH = Annotated[np.ndarray, "B, H"]
ArrayB4H = Annotated[np.ndarray, "B, 4 H"]
ArrayTBP = Annotated[np.ndarray, "T + 1, B, P"]
ArrayTBH = Annotated[np.ndarray, "T or T + 1, B, H"]
ArrayTB4H = Annotated[np.ndarray, "T, B, 4 H"]


class State(NamedTuple):
    """What goes from one step to the next, or its gradient."""

    h: ArrayBP
    c: ArrayBH


class Cache(NamedTuple):
    """What the backward pass needs. Time is axis 0, so that a step is one block of memory."""

    params: Params
    x: ArrayBTD
    h: ArrayTBP
    c: ArrayTBH  # T + 1
    gates: ArrayTB4H  # i, f, g, o
    tanh_c: ArrayTBH  # T
    m: ArrayTBH  # T, before the projection


def init(
    rng: Rng,
    d_model: int,
    hidden: int,
    projection: int | None = None,
    *,
    forget_bias: float = 1.0,
    dtype: DType = np.float64,
) -> Params:
    """{"wx": (D, 4H), "wh": (P, 4H), "b": (4H,)}, with a projection also {"wp": (H, P)}.

    Matrices are normal with standard deviation 1/√(number of inputs), b is 0 but for the forget
    gate's, which is `forget_bias`: at first a cell keeps most of what it has.
    """
    rng = checks.generator("rng", rng)
    dtype = checks.float_type("dtype", dtype)
    D = checks.size("d_model", d_model)
    H = checks.size("hidden", hidden)
    P = H if projection is None else checks.size("projection", projection)
    shapes = {"wx": (D, 4 * H), "wh": (P, 4 * H)}
    shapes |= {} if projection is None else {"wp": (H, P)}
    params = {
        name: (rng.normal(size=shape) / np.sqrt(shape[0])).astype(dtype)
        for name, shape in shapes.items()
    }
    b = np.zeros(4 * H, dtype)
    b[H : 2 * H] = checks.number("forget_bias", forget_bias)
    return {**params, "b": b}


def zero_state(params: Params, batch: int) -> State:
    """The state before the first step of a text: zeros for `batch` sequences."""
    P, H4 = params["wh"].shape
    dtype = params["wh"].dtype
    return State(np.zeros((batch, P), dtype), np.zeros((batch, H4 // 4), dtype))


# --- one step, without checks ---------------------------------------------------------------------


def cell_forward(z: ArrayB4H, c: ArrayBH) -> tuple[ArrayBH, ArrayBH, ArrayB4H, ArrayBH]:
    """z (B, 4H), the cells before -> the cells after, m, gates i f g o, tanh of the cells after."""
    H = c.shape[1]
    gates = np.empty_like(z)
    gates[:, : 2 * H] = numerics.sigmoid(z[:, : 2 * H])
    gates[:, 2 * H : 3 * H] = np.tanh(z[:, 2 * H : 3 * H])
    gates[:, 3 * H :] = numerics.sigmoid(z[:, 3 * H :])
    i, f, g, o = parts(gates)
    c = f * c + i * g
    tanh_c = np.tanh(c)
    return c, o * tanh_c, gates, tanh_c


def cell_backward(
    dm: ArrayBH, dc: ArrayBH, c: ArrayBH, gates: ArrayB4H, tanh_c: ArrayBH
) -> tuple[ArrayB4H, ArrayBH]:
    """dm, and dc of the cells after -> dz (B, 4H), and dc of the cells before, which `c` are."""
    i, f, g, o = parts(gates)
    dc = dc + dm * o * (1 - tanh_c * tanh_c)
    dz = np.empty_like(gates)
    di, df, dg, do = parts(dz)
    di[:] = numerics.sigmoid_backward(dc * g, i)
    df[:] = numerics.sigmoid_backward(dc * c, f)
    dg[:] = dc * i * (1 - g * g)
    do[:] = numerics.sigmoid_backward(dm * tanh_c, o)
    return dz, dc * f


def parts(z: ArrayB4H) -> tuple[ArrayBH, ArrayBH, ArrayBH, ArrayBH]:
    """The four parts i, f, g, o of the last axis, as views."""
    H = z.shape[-1] // 4
    return z[..., :H], z[..., H : 2 * H], z[..., 2 * H : 3 * H], z[..., 3 * H :]


# --- sequences ------------------------------------------------------------------------------------


def forward(
    params: Params, x: ArrayBTD, state: State | None = None
) -> tuple[Annotated[np.ndarray, "B, T, P"], State, Cache]:
    """x (B, T, D) -> (h (B, T, P), the state after the last step, cache).

    state   before the first step; None: zeros

    Raises InputError for parameters whose shapes or types do not fit together or to x.
    """
    params, x, state = _check(params, x, state)
    B, T, D = x.shape
    P, H4 = params["wh"].shape
    rows = np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(T * B, D)
    z = (products.forward(rows, params["wx"]) + params["b"]).reshape(T, B, H4)
    h = np.empty((T + 1, B, P), x.dtype)
    c = np.empty((T + 1, B, H4 // 4), x.dtype)
    h[0], c[0] = state
    compiled = kernels.compiled(x.dtype)
    tanh_c, m = (kernels.lstm.forward if compiled else recurrence_numpy)(params, z, h, c)
    out = np.ascontiguousarray(h[1:].transpose(1, 0, 2))
    return out, State(h[T].copy(), c[T].copy()), Cache(params, x, h, c, z, tanh_c, m)


@one_blas_thread()
def recurrence_numpy(
    params: Params, z: ArrayTB4H, h: ArrayTBP, c: ArrayTBH
) -> tuple[ArrayTBH, ArrayTBH]:
    """All steps: z (T, B, 4H), without the part of h, becomes the gates; h and c are filled from
    their first step on; -> tanh_c, m (T, B, H).
    """
    tanh_c = np.empty_like(c[1:])
    m = np.empty_like(tanh_c) if "wp" in params else h[1:]
    for t in range(len(z)):
        total = z[t] + h[t] @ params["wh"]
        c[t + 1], m[t], z[t], tanh_c[t] = cell_forward(total, c[t])
        if "wp" in params:
            h[t + 1] = m[t] @ params["wp"]
    return tanh_c, m


def backward(
    dh: Annotated[np.ndarray, "B, T, P"], cache: Cache, dstate: State | None = None
) -> tuple[ArrayBTD, State, Params]:
    """dh (B, T, P), the gradient of the state after the last step -> (dx (B, T, D), the gradient of
    the state before the first step, {"wx", "wh", "b"[, "wp"]}).

    dstate   None: zeros, as at the end of a text and in truncated backpropagation through time
    """
    params, x, h, c, gates, tanh_c, m = cache
    T, B, H4 = gates.shape
    P = h.shape[2]
    dh = checks.array("dh", dh, (B, T, P), finite=False)
    arriving = np.zeros((T + 1, B, P), x.dtype)  # at the outputs, the first state before them
    arriving[1:] = dh.transpose(1, 0, 2)
    dstate = zero_state(params, B) if dstate is None else State(*dstate)
    arriving[T] += dstate.h
    dc = np.array(dstate.c)
    compiled = kernels.compiled(x.dtype)
    steps = kernels.lstm.backward if compiled else recurrence_backward_numpy
    dz = steps(params, arriving, dc, c, gates, tanh_c)
    rows = dz.reshape(T * B, H4)
    x_rows = np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(T * B, x.shape[2])
    dx = products.input_gradient(rows, params["wx"])
    dx = dx.reshape(T, B, x.shape[2]).transpose(1, 0, 2)
    grads = {
        "wx": products.weight_gradient(x_rows, rows),
        "wh": products.weight_gradient(h[:T].reshape(T * B, P), rows),
        "b": rows.sum(axis=0),
    }
    if "wp" in params:
        outputs = arriving[1:].reshape(T * B, P)
        grads["wp"] = products.weight_gradient(m.reshape(T * B, H4 // 4), outputs)
    return np.ascontiguousarray(dx), State(arriving[0], dc), grads


@one_blas_thread()
def recurrence_backward_numpy(
    params: Params, dh: ArrayTBP, dc: ArrayBH, c: ArrayTBH, gates: ArrayTB4H, tanh_c: ArrayTBH
) -> ArrayTB4H:
    """All steps backward: -> dz (T, B, 4H).

    dh (T + 1, B, P) and dc (B, H) become the gradients of all outputs and of the first cells.
    """
    dz = np.empty_like(gates)
    for t in reversed(range(len(gates))):
        dm = dh[t + 1] @ params["wp"].T if "wp" in params else dh[t + 1]
        dz[t], dc[:] = cell_backward(dm, dc, c[t], gates[t], tanh_c[t])
        dh[t] += dz[t] @ params["wh"].T
    return dz


# --- the checks of what comes in ------------------------------------------------------------------


def check_params(name: str, params: Params) -> Params:
    """The parameters of an LSTM layer as arrays, after checking them against each other."""
    axes: dict[str, tuple[int | str, ...]] = {"wx": ("D", "4H"), "wh": ("P", "4H"), "b": ("4H",)}
    projected = "wp" in checks.mapping(name, params)
    arrays = checks.params(name, params, {**axes, "wp": ("H", "P")} if projected else axes)
    P, H4 = arrays["wh"].shape
    H = len(arrays["wp"]) if projected else P
    if H4 != 4 * H:
        raise InputError(f"{name}['wh']: wanted 4·{H} columns, four gates, got {H4}")
    return arrays


def _check(params, x, state):
    params = check_params("params", params)
    wx = params["wx"]
    x = checks.array("x", x, ("B", "T", len(wx)))
    if x.dtype != wx.dtype:
        raise InputError(f"x: wanted {wx.dtype}, the type of the parameters, got {x.dtype}")
    return params, x, check_state(state, params, len(x))


def check_state(state: State | None, params: Params, batch: int) -> State:
    """The state before the first step, after a check of its shapes; zeros for None."""
    zeros = zero_state(params, batch)
    if state is None:
        return zeros
    h, c = state
    h = checks.array("state.h", h, zeros.h.shape).astype(zeros.h.dtype, copy=False)
    c = checks.array("state.c", c, zeros.c.shape).astype(zeros.c.dtype, copy=False)
    return State(h, c)
