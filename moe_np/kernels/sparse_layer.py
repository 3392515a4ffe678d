"""The sparse layer as compiled loops: sort, one task an expert, combine. The equations are in
`moe_np.layers.sparse_layer`.

What makes it fast. Assignments are sorted by expert once (counting sort). A task is a whole expert:
it gathers its rows and does its products one after the other, on a BLAS of one thread, while other
threads do other experts. That is faster than one expert after the other on a BLAS of many threads,
because most of these products are too small to share out. The outputs are then summed token by
token ("gather form"): no two threads write to one place.

All of a pass is one call: a thread that finds no task left waits until the last one is done, and
goes on to the sums. It looks again and again for a while, because being woken takes longer; then it
lets others have its core.

What makes it repeatable. Which thread does a task changes nothing in it, and how the work is cut
into tasks depends on the routing alone: only an expert with more than a quarter of all rows is cut,
into pieces of about an eighth, whose weight gradients are added in order. A token's rows are added
in the order of its experts. So the bits do not depend on the number of threads.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numba import njit

from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.kernels.machine import activations
from moe_np.kernels.machine.blas import PLAIN, TRANSPOSED, finite, fixed, gemm
from moe_np.kernels.machine.thread_pool import add, share

RELU, GELU, SWIGLU = range(3)
TAKEN, DONE, COMBINED = range(3)  # what is counted: tasks, tasks, tokens
BLOCK = 256  # tokens that a thread combines at a time
LOOKS = 1 << 15  # at whether the others are done: 0.2 ms
STEP, LIGHT = (
    96,
    1 << 16,
)  # rows that an expert goes on with at a time, if w1 has no more than so many bytes
FEW = 1 << 21  # multiplications of a matrix that are done before a second thread is awake
KINDS = {"relu": RELU, "gelu": GELU, "swiglu": SWIGLU}


# --- memory ---------------------------------------------------------------------------------------


def _none(axes, dtype):
    return fixed(np.empty((0,) * axes, dtype))


def _room(workspace, name, shape, *, dtype):
    """An array of that shape in `workspace`, which grows when it has to. Its contents are whatever
    was there.

    It begins with a cache line, where NumPy's own begin a quarter of one later: vectors that lie
    across two lines take 2 % of a small layer's time.
    """
    size = math.prod(shape)
    have = workspace.get(name)
    if have is None or have.size < size or have.dtype != dtype:
        have = np.empty(size + 16, dtype)
        have = workspace[name] = have[-have.ctypes.data % 64 // have.itemsize :]
    return have[:size].reshape(shape)


# --- sorting --------------------------------------------------------------------------------------


class Sorted(NamedTuple):
    order: np.ndarray  # (A,) the assignment at each place
    offsets: np.ndarray  # (E + 1,)
    token: np.ndarray  # (A,) by place
    weight: np.ndarray  # (A,) by place
    # (N + 1,) token n has places[start[n]:start[n + 1]], in the order of its experts
    start: np.ndarray
    places: np.ndarray  # (A,)


@njit(cache=True)
def _sort(token, expert, weight, n_tokens, n_experts):
    A, sound = len(token), finite(weight)
    offsets, start = np.zeros(n_experts + 1, np.int64), np.zeros(n_tokens + 1, np.int64)
    for a in range(A):
        if not (0 <= token[a] < n_tokens and 0 <= expert[a] < n_experts):
            return token, offsets, token, weight, start, token, False
        offsets[expert[a] + 1] += 1
        start[token[a] + 1] += 1
    for m in range(n_experts):
        offsets[m + 1] += offsets[m]
    for n in range(n_tokens):
        start[n + 1] += start[n]
    order, places, free = np.empty(A, np.int64), np.empty(A, np.int64), offsets.copy()
    sorted_token, sorted_weight = np.empty(A, np.int64), np.empty(A, weight.dtype)
    for a in range(A):
        i = free[expert[a]]
        free[expert[a]] += 1
        order[i], sorted_token[i], sorted_weight[i] = a, token[a], weight[a]
    free = start.copy()
    for m in range(n_experts):
        for i in range(offsets[m], offsets[m + 1]):
            n = sorted_token[i]
            p = free[n]
            free[n] += 1
            places[p] = i
            sound &= (
                p == start[n] or places[p - 1] < offsets[m]
            )  # its place before this is of another expert
    return order, offsets, sorted_token, sorted_weight, start, places, sound


def sort(token, expert, weight, n_tokens, n_experts):
    """Counting sort of the assignments by expert (twin: `sparse_layer.by_expert`), and of their
    places by token.

    None where a number is out of range, a weight not finite, or an expert comes twice for a token.
    """
    token, expert = fixed(token, np.int64), fixed(expert, np.int64)
    *found, sound = _sort(token, expert, fixed(weight), n_tokens, n_experts)
    return Sorted(*found) if sound else None


class Plan(NamedTuple):
    # (T, 4) expert, its first row, the end of its rows, and where its weight gradients go
    tasks: np.ndarray
    longest: int  # rows: room for one task is what a thread works on, so that it stays in its cache
    extra: list  # the experts of the pieces beyond the first: their gradients stand behind those of the E experts


@njit(cache=True)
def _cut(offsets):
    E, A = len(offsets) - 1, offsets[-1]
    tasks, extra, T = np.empty((E + 16, 4), np.int64), np.empty(16, np.int64), 0
    for m in range(E):
        lo, n = offsets[m], offsets[m + 1] - offsets[m]
        pieces = n // max(256, A // 8) if n > max(512, A // 4) else 1
        for i in range(pieces):
            tasks[T, 0], tasks[T, 1], tasks[T, 2] = (
                m,
                lo + i * n // pieces,
                lo + (i + 1) * n // pieces,
            )
            tasks[T, 3] = E + T - m - 1 if i else m
            if i:
                extra[T - m - 1] = m
            T += 1
    return tasks[:T], extra[: T - E]


def plan(offsets):
    """Cut the work into tasks, the longest first: then all threads end at about the same time."""
    tasks, extra = _cut(offsets)
    tasks = tasks[np.argsort(tasks[:, 1] - tasks[:, 2], kind="stable")]
    return Plan(tasks, int(tasks[0, 2] - tasks[0, 1]), extra)


# --- combine --------------------------------------------------------------------------------------


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _combine(counter, tasks, rows, weight, weighted, start, places, out):
    """out_n = Σ weight · row over the places of token n (or without the weight), if all tasks are
    done: -> whether.
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


# --- the tasks ------------------------------------------------------------------------------------


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _gather(lo, hi, x, token, rows):
    for i in range(lo, hi):
        n = token[
            i
        ]  # read once: inside the next loop it would keep the compiler from copying in vectors
        for d in range(x.shape[1]):
            rows[i, d] = x[n, d]


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _fill(lo, hi, b, y):
    """Each row becomes b: what a product is then added to."""
    for i in range(lo, hi):
        for d in range(y.shape[1]):
            y[i, d] = b[d]


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(
    counter,
    tasks,
    x,
    token,
    weight,
    start,
    places,
    w1,
    b1,
    w3,
    w2,
    b2,
    kind,
    step,
    rows,
    z,
    g,
    y,
    out,
    h,
):
    """For each task: gather rows, z = rows W1, (g = rows W3,) h = act(z + b1), y = h W2 + b2; h is
    the thread's.

    `step` rows at a time: where the weights are small, so that what becomes of the rows is still in
    the cache.
    """
    t = add(counter, TAKEN, 1)
    while t < len(tasks):
        m, lo, hi = tasks[t, 0], tasks[t, 1], tasks[t, 2]
        _gather(lo, hi, x, token, rows)
        for i in range(lo, hi, step):
            j = min(i + step, hi)
            gemm(
                PLAIN, PLAIN, rows[i:j], w1[m % len(w1)], 0, z[i:j]
            )  # m % 1: a parameter that all experts share
            if kind == SWIGLU:
                gemm(PLAIN, PLAIN, rows[i:j], w3[m % len(w3)], 0, g[i:j])
                activations.swiglu_forward(i, j, z, g, h)
            elif kind == GELU:
                activations.gelu_forward(i, j, z, b1[m % len(b1)], h)
            else:
                activations.relu_forward(i, j, z, b1[m % len(b1)])
            if kind != SWIGLU:
                _fill(i, j, b2[m % len(b2)], y)
            gemm(
                PLAIN,
                PLAIN,
                z[i:j] if kind == RELU else h[: j - i],
                w2[m % len(w2)],
                kind != SWIGLU,
                y[i:j],
            )
        add(counter, DONE, 1)
        t = add(counter, TAKEN, 1)
    return _combine(counter, len(tasks), y, weight, True, start, places, out)


@njit(
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "nsz"},
)
def _arrive(lo, hi, dout, token, weight, order, y, dy, dweight, db2):
    """dy = weight dout, dweight = dout·y, db2 = Σ dy."""
    db2[:] = 0
    for i in range(lo, hi):
        n, w = token[i], weight[i]
        total = w - w
        for d in range(y.shape[1]):
            v = dout[n, d]
            total += v * y[i, d]
            dy[i - lo, d] = w * v
            db2[d] += w * v
        dweight[order[i]] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _backward(
    counter, tasks, dout, token, weight, order, start, places, w1, w3, w2, kind, rows, z, g, y,
    drows, dw1, db1, dw3, dw2, db2, dweight, dx, h, dy, dh, dg,
):  # fmt: skip
    """For each task: all gradients of the expert, and of its rows. The last four arrays are this
    thread's own.
    """
    t = add(counter, TAKEN, 1)
    while t < len(tasks):
        m, lo, hi, p = tasks[t, 0], tasks[t, 1], tasks[t, 2], tasks[t, 3]
        n = hi - lo
        _arrive(lo, hi, dout, token, weight, order, y, dy, dweight, db2[p])
        gemm(PLAIN, TRANSPOSED, dy[:n], w2[m % len(w2)], 0, dh[:n])
        if kind == SWIGLU:
            activations.swiglu_backward(lo, hi, dh, z, g, h, dg)
        elif kind == GELU:
            activations.gelu_backward(lo, hi, dh, z, h, db1[p])
        else:
            activations.relu_backward(lo, hi, dh, z, db1[p])
        gemm(TRANSPOSED, PLAIN, z[lo:hi] if kind == RELU else h[:n], dy[:n], 0, dw2[p])
        gemm(TRANSPOSED, PLAIN, rows[lo:hi], dh[:n], 0, dw1[p])
        gemm(PLAIN, TRANSPOSED, dh[:n], w1[m % len(w1)], 0, drows[lo:hi])
        if kind == SWIGLU:
            gemm(TRANSPOSED, PLAIN, rows[lo:hi], dg[:n], 0, dw3[p])
            gemm(PLAIN, TRANSPOSED, dg[:n], w3[m % len(w3)], 1, drows[lo:hi])
        add(counter, DONE, 1)
        t = add(counter, TAKEN, 1)
    return _combine(counter, len(tasks), drows, weight, False, start, places, dx)


# --- the two passes -------------------------------------------------------------------------------


class Kept(NamedTuple):
    """What the backward pass needs."""

    kind: int
    params: dict
    sorted: Sorted
    plan: Plan
    crew: int  # threads
    workspace: dict
    rows: np.ndarray  # (A, D)
    z: np.ndarray  # (A, H)  SwiGLU: a; ReLU: h, which has the same positive entries
    g: np.ndarray  # (A, H)  SwiGLU: b; otherwise empty
    y: np.ndarray  # (A, D_out)


def forward(params, x, s, name, workspace):
    """The same as `sparse_layer.forward_numpy` to rounding, s from `sort`: -> (out, Kept)."""
    kind, dtype = KINDS[name], x.dtype
    w = {k: fixed(p) for k, p in params.items()}
    (_, D, H), Dout = w["w1"].shape, w["w2"].shape[2]
    A, N = len(s.order), len(s.start) - 1
    crew = blas_threads() if A * D * H > FEW else 1
    p = plan(s.offsets)
    room = functools.partial(_room, workspace, dtype=dtype)
    rows, z, y, out = (
        room("rows", (A, D)),
        room("z", (A, H)),
        room("y", (A, Dout)),
        room("out", (N, Dout)),
    )
    g = room("g", (A if kind == SWIGLU else 0, H))
    step = STEP if D * H * x.itemsize <= LIGHT else max(1, p.longest)
    h = [(room(f"h{t}", (0 if kind == RELU else step, H)),) for t in range(crew)]
    w3, b1, b2 = (
        w.get("w3", _none(3, dtype)),
        w.get("b1", _none(2, dtype)),
        w.get("b2", _none(2, dtype)),
    )
    where = (s.token, s.weight, s.start, s.places)
    with one_blas_thread():
        share(
            _forward,
            (
                p.tasks,
                fixed(x),
                *where,
                w["w1"],
                b1,
                w3,
                w["w2"],
                b2,
                kind,
                step,
                rows,
                z,
                g,
                y,
                out,
            ),
            h,
        )
    return out, Kept(kind, w, s, p, crew, workspace, rows, z, g, y)


def backward(dout, kept):
    """The same as `sparse_layer.backward_numpy` to rounding: -> (dx, grads, dweight)."""
    kind, w, s, p, crew, workspace, rows, z, g, y = kept
    A, E, N = len(s.order), len(s.offsets) - 1, len(s.start) - 1
    (_, D, H), Dout = w["w1"].shape, y.shape[1]
    P = E + len(p.extra)
    room = functools.partial(_room, workspace, dtype=y.dtype)
    dw = {"w1": room("dw1", (P, D, H)), "b1": room("db1", (P, H)), "w2": room("dw2", (P, H, Dout))}
    dw |= {"b2": room("db2", (P, Dout)), "w3": room("dw3", (P if kind == SWIGLU else 0, D, H))}
    drows, dweight, dx = room("drows", (A, D)), room("dweight", (A,)), room("dx", (N, D))
    n = p.longest
    sizes = {
        "h": (0 if kind == RELU else n, H),
        "dy": (n, Dout),
        "dh": (n, H),
        "dg": (n if kind == SWIGLU else 0, H),
    }
    own = [[room(f"{name}{t}", size) for name, size in sizes.items()] for t in range(crew)]
    w3 = w.get("w3", _none(3, y.dtype))
    arguments = (
        *(
            p.tasks,
            fixed(dout),
            s.token,
            s.weight,
            s.order,
            s.start,
            s.places,
            w["w1"],
            w3,
            w["w2"],
        ),
        *(
            kind,
            rows,
            z,
            g,
            y,
            drows,
            dw["w1"],
            dw["b1"],
            dw["w3"],
            dw["w2"],
            dw["b2"],
            dweight,
            dx,
        ),
    )
    with one_blas_thread():
        share(_backward, arguments, own)
    return dx, {k: _added(dw[k], p.extra, E, len(w[k])) for k in w}, dweight


def _added(dw, extra, E, length):
    """Add the pieces of a hot expert to its first one, in order; add up all experts where the
    parameter is shared.
    """
    for i, m in enumerate(extra):
        dw[m] += dw[E + i]
    return dw[:E] if length == E else dw[:E].sum(axis=0, keepdims=True)
