"""The sparse layer as compiled loops; the equations are in `moe_np.layers.sparse_layer`.

What makes it fast. The assignments are sorted by expert once. A task is a whole expert: a thread
gathers its rows and computes its products one after the other, on a BLAS of one thread, while the
other threads compute other experts. Most of these products are too small to be divided, so this is
faster than one expert after the other on a BLAS of many threads. Then the outputs are summed token
by token, so that no two threads write to one place.

A pass is one call per thread: a thread that finds no task left waits until the last task is done,
and goes on to the sums. It asks again and again for a while, because to be woken takes longer; then
it sleeps, so that other programs can have its core.

What makes it repeatable. A task computes the same in any thread, and the tasks depend on the
routing alone: an expert with more than a quarter of all rows is cut into pieces, whose weight
gradients are added in order. The rows of a token are added in the order of its experts. So the bits
do not depend on the number of threads.

The letters: A assignments, N tokens, E experts, T tasks, D features, H hidden units; P places of
weight gradients, one per expert and one per further piece of an expert.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.base.types import Array, ArrayA, ArrayAD, ArrayND, Params
from moe_np.kernels.machine import activations
from moe_np.kernels.machine.blas import NO_TRANS, TRANS, all_finite, gemm, read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.jit_options import ENTRY, INNER
from moe_np.kernels.machine.tasks import Plan, Sorted, plan, sort
from moe_np.kernels.machine.thread_pool import add, share

__all__ = ["all_finite", "backward", "forward", "plan", "read_only", "sort"]

RELU, GELU, SWIGLU = range(3)
ACTIVATIONS = {"relu": RELU, "gelu": GELU, "swiglu": SWIGLU}
TAKEN, DONE, COMBINED = range(3)  # entries of the counter: tasks, tasks, tokens

# Each was chosen by the time of the layer, at the shape behind it; no record of it was kept:
#   python -m moe_np.experiments.layer_speed.thresholds sparse_layer.NAME VALUE ... --shape N,D,E
BLOCK = 256  # tokens that a thread combines before it takes the next block: 4096,64,8
LOOKS = 1 << 15  # questions whether the others are done, before a thread sleeps: 1024,64,8
STEP = 96  # rows that a task computes at a time, to stay in the cache: 4096,64,8
LIGHT = 1 << 16  # bytes of w1 up to which a task goes by STEP: 4096,64,8 and 4096,256,8
FEW = 1 << 21  # multiplications per matrix, up to which one thread works alone: 256,64,8


class Weights(NamedTuple):
    """Parameters of the experts; those that an expert does not have are empty."""

    w1: Annotated[np.ndarray, "E or 1, D, H"]
    b1: Annotated[np.ndarray, "E or 1, H"]
    w3: Annotated[np.ndarray, "E or 1, D, H"]
    w2: Annotated[np.ndarray, "E or 1, H, D_out"]
    b2: Annotated[np.ndarray, "E or 1, D_out"]


class Rows(NamedTuple):
    """The intermediate results of the forward pass, one row per assignment, sorted by expert."""

    rows: ArrayAD
    z: Annotated[np.ndarray, "A, H"]  # SwiGLU: a; ReLU: h, which has the same positive entries
    g: Annotated[np.ndarray, "A, H"]  # SwiGLU: b; otherwise empty
    y: Annotated[np.ndarray, "A, D_out"]


class Gradients(NamedTuple):
    """What the backward pass fills; the experts' gradients at their P places."""

    w1: Annotated[np.ndarray, "P, D, H"]
    b1: Annotated[np.ndarray, "P, H"]
    w3: Annotated[np.ndarray, "P, D, H"]
    w2: Annotated[np.ndarray, "P, H, D_out"]
    b2: Annotated[np.ndarray, "P, D_out"]
    rows: ArrayAD
    weight: ArrayA


class Scratch(NamedTuple):
    """Arrays of one thread, for the rows of one task; those that are not needed are empty."""

    h: Annotated[np.ndarray, "rows, H"]
    dy: Annotated[np.ndarray, "rows, D_out"]
    dh: Annotated[np.ndarray, "rows, H"]
    dg: Annotated[np.ndarray, "rows, H"]


class Kept(NamedTuple):
    """What the backward pass needs of the forward pass."""

    activation: int
    params: Params
    sorted: Sorted
    plan: Plan
    threads: int
    workspace: dict
    rows: ArrayAD
    z: Annotated[np.ndarray, "A, H"]
    g: Annotated[np.ndarray, "A, H"]
    y: Annotated[np.ndarray, "A, D_out"]


# --- memory ---------------------------------------------------------------------------------------


def _room(workspace, name, shape, *, dtype):
    """An array of that shape in `workspace`, which grows where it has to; its contents are old.

    It begins at a cache line, where NumPy's arrays begin a quarter of a line later: vectors that
    lie across two lines take 2 % of the time of a small layer.
    """
    size = math.prod(shape)
    memory = workspace.get(name)
    if memory is None or memory.size < size or memory.dtype != dtype:
        memory = np.empty(size + 16, dtype)
        memory = workspace[name] = memory[-memory.ctypes.data % 64 // memory.itemsize :]
    return memory[:size].reshape(shape)


@functools.cache
def _no_weights(dtype):
    axes = {"w1": 3, "b1": 2, "w3": 3, "w2": 3, "b2": 2}
    return Weights(**{name: read_only(np.empty((0,) * n, dtype)) for name, n in axes.items()})


# --- combine --------------------------------------------------------------------------------------


@njit(**INNER)
def _combine(counter, tasks, rows, weight, weighted, start, places, out):
    """out_n = Σ weight · row over the places of token n (unweighted: Σ row), if all tasks are done;
    returns whether.
    """
    looks = 0
    while add(counter, DONE, 0) < tasks:
        looks += 1
        if looks == LOOKS:
            return False
    first = add(counter, COMBINED, BLOCK)
    while first < len(out):
        for n in range(first, min(first + BLOCK, len(out))):
            lo, hi = start[n], start[n + 1]
            if lo == hi:
                out[n] = 0
            for p in range(lo, hi):
                i = places[p]
                w = weight[i] if weighted else weight.dtype.type(1)
                if p == lo:
                    for d in range(out.shape[1]):
                        out[n, d] = w * rows[i, d]
                else:
                    for d in range(out.shape[1]):
                        out[n, d] += w * rows[i, d]
        first = add(counter, COMBINED, BLOCK)
    return True


# --- forward --------------------------------------------------------------------------------------


@njit(**INNER)
def _gather(lo, hi, x, token, rows):
    for i in range(lo, hi):
        n = token[i]  # read once: inside the next loop it would prevent vector instructions
        for d in range(x.shape[1]):
            rows[i, d] = x[n, d]


@njit(**INNER)
def _fill(lo, hi, b, y):
    """Each row becomes b, to which a product is then added."""
    for i in range(lo, hi):
        for d in range(y.shape[1]):
            y[i, d] = b[d]


@njit(**ENTRY)
def _forward(counter, tasks, x, s, w, activation, step, kept, out, h):
    """For each task: gather the rows, z = rows W1, (g = rows W3,) h = act(z + b1), y = h W2 + b2.

    Computes `step` rows at a time. h belongs to the thread. A parameter that all experts share has
    one entry, so its index is m % 1.
    """
    rows, z, g, y = kept
    w1, b1, w3, w2, b2 = w
    t = add(counter, TAKEN, 1)
    while t < len(tasks):
        m, lo, hi = tasks[t, 0], tasks[t, 1], tasks[t, 2]
        _gather(lo, hi, x, s.token, rows)
        for i in range(lo, hi, step):
            j = min(i + step, hi)
            gemm(NO_TRANS, NO_TRANS, rows[i:j], w1[m % len(w1)], 0, z[i:j])
            if activation == SWIGLU:
                gemm(NO_TRANS, NO_TRANS, rows[i:j], w3[m % len(w3)], 0, g[i:j])
                activations.swiglu_forward(i, j, z, g, h)
            elif activation == GELU:
                activations.gelu_forward(i, j, z, b1[m % len(b1)], h)
            else:
                activations.relu_forward(i, j, z, b1[m % len(b1)])
            if activation != SWIGLU:
                _fill(i, j, b2[m % len(b2)], y)
            hidden = z[i:j] if activation == RELU else h[: j - i]
            gemm(NO_TRANS, NO_TRANS, hidden, w2[m % len(w2)], int(activation != SWIGLU), y[i:j])
        add(counter, DONE, 1)
        t = add(counter, TAKEN, 1)
    return _combine(counter, len(tasks), y, s.weight, True, s.start, s.places, out)


def forward(
    params: Params, x: ArrayND, s: Sorted, name: str, workspace: dict
) -> tuple[Annotated[np.ndarray, "N, D_out"], Kept]:
    """`forward_numpy` of `moe_np.layers.sparse_layer`, equal to rounding: -> (out, Kept).

    s comes from `sort`; name is the expert's: relu, gelu or swiglu; workspace is a dict for the
    arrays, which are valid until it is used again.
    """
    activation = ACTIVATIONS[name]
    params = {key: read_only(p) for key, p in params.items()}
    _, H, D_out = params["w2"].shape
    N, D = x.shape
    A = len(s.order)
    threads = blas_threads() if A * D * H > FEW else 1
    p = plan(s.offsets)
    step = STEP if D * H * x.itemsize <= LIGHT else max(1, p.longest)
    room = functools.partial(_room, workspace, dtype=x.dtype)
    kept = Rows(
        room("rows", (A, D)),
        room("z", (A, H)),
        room("g", (A if activation == SWIGLU else 0, H)),
        room("y", (A, D_out)),
    )
    out = room("out", (N, D_out))
    weights = _no_weights(x.dtype)._replace(**params)
    scratch = [(room(f"h{t}", (0 if activation == RELU else step, H)),) for t in range(threads)]
    arguments = (p.tasks, read_only(x), s, weights, activation, step, kept, out)
    with one_blas_thread():
        share(_forward, arguments, scratch)
    return out, Kept(activation, params, s, p, threads, workspace, *kept)


# --- backward -------------------------------------------------------------------------------------


@njit(**INNER, fastmath={"reassoc", "contract", "nsz"})
def _weigh_backward(lo, hi, dout, token, weight, order, y, dy, dweight, db2):
    """dy = weight dout, dweight = dout·y, db2 = Σ dy."""
    db2[:] = 0
    for i in range(lo, hi):
        n, w = token[i], weight[i]
        total = w - w
        for d in range(y.shape[1]):  # without a store: the same order of sums at any address
            total += dout[n, d] * y[i, d]
        for d in range(y.shape[1]):
            v = dout[n, d]
            dy[i - lo, d] = w * v
            db2[d] += w * v
        dweight[order[i]] = total


@njit(**ENTRY)
def _backward(counter, tasks, dout, s, w, activation, kept, gradients, dx, scratch):
    """For each task: the gradients of the expert and of its rows. Scratch belongs to the thread."""
    rows, z, g, y = kept
    w1, _, w3, w2, _ = w
    dw1, db1, dw3, dw2, db2, drows, dweight = gradients
    h, dy, dh, dg = scratch
    t = add(counter, TAKEN, 1)
    while t < len(tasks):
        m, lo, hi, p = tasks[t, 0], tasks[t, 1], tasks[t, 2], tasks[t, 3]
        n = hi - lo
        _weigh_backward(lo, hi, dout, s.token, s.weight, s.order, y, dy, dweight, db2[p])
        gemm(NO_TRANS, TRANS, dy[:n], w2[m % len(w2)], 0, dh[:n])
        if activation == SWIGLU:
            activations.swiglu_backward(lo, hi, dh, z, g, h, dg)
        elif activation == GELU:
            activations.gelu_backward(lo, hi, dh, z, h, db1[p])
        else:
            activations.relu_backward(lo, hi, dh, z, db1[p])
        hidden = z[lo:hi] if activation == RELU else h[:n]
        gemm(TRANS, NO_TRANS, hidden, dy[:n], 0, dw2[p])
        gemm(TRANS, NO_TRANS, rows[lo:hi], dh[:n], 0, dw1[p])
        gemm(NO_TRANS, TRANS, dh[:n], w1[m % len(w1)], 0, drows[lo:hi])
        if activation == SWIGLU:
            gemm(TRANS, NO_TRANS, rows[lo:hi], dg[:n], 0, dw3[p])
            gemm(NO_TRANS, TRANS, dg[:n], w3[m % len(w3)], 1, drows[lo:hi])
        add(counter, DONE, 1)
        t = add(counter, TAKEN, 1)
    return _combine(counter, len(tasks), drows, s.weight, False, s.start, s.places, dx)


def backward(dout: Annotated[np.ndarray, "N, D_out"], kept: Kept) -> tuple[ArrayND, Params, ArrayA]:
    """`backward_numpy` of `moe_np.layers.sparse_layer`, to rounding: -> (dx, grads, dweight)."""
    s = kept.sorted
    p = kept.plan
    room = functools.partial(_room, kept.workspace, dtype=kept.y.dtype)
    gradients = _gradients(kept, room)
    dx = room("dx", (len(s.start) - 1, kept.rows.shape[1]))
    weights = _no_weights(kept.y.dtype)._replace(**kept.params)
    rows = Rows(kept.rows, kept.z, kept.g, kept.y)
    scratch = [(_scratch(kept, t, room),) for t in range(kept.threads)]
    arguments = (p.tasks, read_only(dout), s, weights, kept.activation, rows, gradients, dx)
    with one_blas_thread():
        share(_backward, arguments, scratch)
    E = len(s.offsets) - 1
    grads = {
        key: _sum_pieces(getattr(gradients, key), p.extra, E, len(param))
        for key, param in kept.params.items()
    }
    return dx, grads, gradients.weight


def _gradients(kept: Kept, room: Callable[..., Array]) -> Gradients:
    A, D = kept.rows.shape
    H = kept.z.shape[1]
    D_out = kept.y.shape[1]
    P = len(kept.sorted.offsets) - 1 + len(kept.plan.extra)
    return Gradients(
        w1=room("dw1", (P, D, H)),
        b1=room("db1", (P, H)),
        w3=room("dw3", (P if kept.activation == SWIGLU else 0, D, H)),
        w2=room("dw2", (P, H, D_out)),
        b2=room("db2", (P, D_out)),
        rows=room("drows", (A, D)),
        weight=room("dweight", (A,)),
    )


def _scratch(kept: Kept, thread: int, room: Callable[..., Array]) -> Scratch:
    n = kept.plan.longest
    H = kept.z.shape[1]
    return Scratch(
        h=room(f"h{thread}", (0 if kept.activation == RELU else n, H)),
        dy=room(f"dy{thread}", (n, kept.y.shape[1])),
        dh=room(f"dh{thread}", (n, H)),
        dg=room(f"dg{thread}", (n if kept.activation == SWIGLU else 0, H)),
    )


def _sum_pieces(dw, extra, E, length):
    """Add the gradients of an expert's pieces to its first one, in order; and those of all experts
    where they share the parameter.
    """
    for i, m in enumerate(extra):
        dw[m] += dw[E + i]
    return dw[:E] if length == E else dw[:E].sum(axis=0, keepdims=True)
