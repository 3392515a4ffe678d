"""A block of a decoder for one position per sequence as a compiled loop; the equations are in
`moe_np.models.decoder_step`.

A block calls some forty functions of NumPy, and with one token per sequence the calls take longer
than what they compute. So here the whole block is a single call: norms, projections, rotation,
attention, gate and experts, on one thread.
"""

from typing import Any, NamedTuple

import numpy as np

from moe_np.base.types import Array
from moe_np.kernels.attention_step import attend
from moe_np.kernels.few_tokens import absent, multiply, run_experts
from moe_np.kernels.machine.blas import read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.jit_options import ENTRY, INNER, PART
from moe_np.kernels.sparse_layer import ACTIVATIONS
from moe_np.kernels.top_k import Gate, gate_blocks

SUMS = {"reassoc", "contract", "nsz"}  # sums may be reordered; infinities and NaN keep their sense


class Weights(NamedTuple):
    """The parameters of a block; all are contiguous, writable and of one type."""

    norm1: Array
    wq: Array
    wk: Array
    wv: Array
    wo: Array
    norm2: Array
    router: Array  # (D, 0) where there is none
    experts: tuple  # w1, b1, w3, w2, b2, empty where the expert has none
    activation: int
    k: int
    renormalise: bool


class Place(NamedTuple):
    """Where the position stands."""

    row: int  # of the keys and values
    first: int  # the first row that the window reaches
    cos: Array  # (d/2,)
    sin: Array
    valid: Array  # (B, S) bool, or (0, 0)


def weights_of(layer: Any, config: Any) -> Weights | None:
    """The parameters of a block, or None where it has parts that `block` does not know (biases,
    norms and clipping of queries, keys and values, shared experts, experts in files, other
    routers), or arrays in another order.
    """
    attention = layer["attention"]
    routed = "router" in layer
    known = len(attention) == 4 and isinstance(layer["experts"], dict) and "shared" not in layer
    if config.clip_qkv is not None or not known or (routed and config.router != "top_k"):
        return None
    g = layer["norm1"]["g"]
    empty = absent(g.dtype)
    given = {**empty, **layer["experts"]}
    experts = tuple(given[name] for name in empty)
    matrices = [attention[name] for name in ("wq", "wk", "wv", "wo")]
    router = layer["router"]["w"] if routed else np.empty((len(g), 0), g.dtype)
    arrays = (g, *matrices, layer["norm2"]["g"], router)
    for a in (*arrays, *experts):
        if type(a) is not np.ndarray or a.dtype != g.dtype or not a.flags.carray:
            return None
    k, renormalise = (config.options["k"], config.options["renormalise"]) if routed else (1, False)
    return Weights(*arrays, experts, ACTIVATIONS[config.expert], k, renormalise)


@njit(**INNER, fastmath=SUMS)
def _rms(x, g, eps, y):
    unit = x.dtype.type(1)
    for n in range(len(x)):
        squares = unit - unit
        for d in range(len(g)):
            squares += x[n, d] * x[n, d]
        root = unit / np.sqrt(squares / x.dtype.type(len(g)) + eps)
        for d in range(len(g)):
            y[n, d] = x[n, d] * root * g[d]


@njit(**INNER)
def _turn(y, cos, sin):
    """Turn y (B, H, d) in place."""
    half = len(cos)
    for b in range(y.shape[0]):
        for h in range(y.shape[1]):
            row = y[b, h]
            for i in range(half):
                a = row[i]
                row[i] = a * cos[i] - row[half + i] * sin[i]
                row[half + i] = row[half + i] * cos[i] + a * sin[i]


@njit(**INNER)
def _add(x, y):
    """y += x, in loops: for whole arrays Numba compiles all ways in which shapes may not fit."""
    for n in range(len(y)):
        for d in range(y.shape[1]):
            y[n, d] += x[n, d]


@njit(**INNER)
def _keep(rows, row, kept):
    """Write rows (B, G, d) to the keys or values (B, G, S, d), at one position."""
    for b in range(rows.shape[0]):
        for g in range(rows.shape[1]):
            for e in range(rows.shape[2]):
                kept[b, g, row, e] = rows[b, g, e]


@njit(**PART)
def _mixture(h, w, gate, m):
    """m = mixture(h); whether the gate's input is sound."""
    N = len(h)
    token = np.empty(N * w.k, np.int64)
    for a in range(len(token)):
        token[a] = a // w.k
    sound = np.empty(1, np.bool_)
    sound[0] = True
    if w.router.shape[1]:
        counter = np.empty(4, np.int64)
        counter[:] = 0
        gate_blocks(counter, sound, read_only(h), read_only(w.router), w.renormalise, gate)
    if sound[0]:
        w1, b1, w3, w2, b2 = w.experts
        experts = (read_only(w1), read_only(b1), read_only(w3), read_only(w2), read_only(b2))
        choice = read_only(gate.choice.reshape(-1))
        weight = read_only(gate.weight.reshape(-1))
        E = gate.demand.shape[1]
        run_experts(read_only(token), choice, weight, E, read_only(h), experts, w.activation, m)
    return sound[0]


@njit(**ENTRY)
def _block(x, w, keys, values, place, eps, gate, y):
    """y = x + attention(norm₁(x)), y ← y + mixture(norm₂(y)); whether the gate's input is sound."""
    B = len(x)
    d = keys.shape[3]
    h = np.empty(y.shape, y.dtype)
    q = np.empty((B, w.wq.shape[1]), y.dtype)
    k = np.empty((B, w.wk.shape[1]), y.dtype)
    v = np.empty(k.shape, y.dtype)
    _rms(x, w.norm1, eps, h)
    multiply(h, read_only(w.wq), q)
    multiply(h, read_only(w.wk), k)
    multiply(h, read_only(w.wv), v)
    by_head = q.reshape(B, q.shape[1] // d, d)
    key = k.reshape(B, k.shape[1] // d, d)
    value = v.reshape(B, k.shape[1] // d, d)
    _turn(by_head, place.cos, place.sin)
    _turn(key, place.cos, place.sin)
    _keep(key, place.row, keys)
    _keep(value, place.row, values)
    out = np.empty(by_head.shape, y.dtype)
    scale = y.dtype.type(1 / np.sqrt(d))
    valid = read_only(place.valid)
    attend(read_only(by_head), keys, values, place.first, place.row + 1, valid, scale, out)
    multiply(out.reshape(q.shape), read_only(w.wo), y)
    _add(x, y)
    _rms(y, w.norm2, eps, h)
    m = np.empty(y.shape, y.dtype)
    sound = _mixture(h, w, gate, m)
    if sound:
        _add(m, y)
    return sound


def block(
    x: Array,
    w: Weights,
    kv: Any,
    angles: Any,
    window: int | None,
    valid: Array | None,
    eps: float,
) -> tuple[Array | None, Gate]:
    """x (B, D) -> x after the block, or None where numbers are not finite; and its gate. The
    position is written behind those of kv (`KeyValues`); angles (`Rotary`) are those of it.
    """
    B = len(x)
    E = w.router.shape[1]
    real = x.dtype
    empty = np.empty if E else np.ones  # without a router the one expert has the weight 1
    choice = np.empty((B, w.k), np.int64) if E else np.zeros((B, 1), np.int64)
    shape = (B, E or 1)
    scores = (empty(shape, real), empty(shape, real))
    gate = Gate(*scores, choice, empty(choice.shape, real), empty(shape, bool))
    row = kv.free_row()
    first = 0 if window is None else max(0, row + 1 - window)
    hidden = np.empty((0, 0), bool) if valid is None else np.ascontiguousarray(valid[:, kv.first :])
    place = Place(row, first, angles.cos[0], angles.sin[0], hidden)
    y = np.empty(x.shape, real)
    sound = _block(x, w, kv.keys, kv.values, place, real.type(eps), gate, y)
    return (y if sound else None), gate
