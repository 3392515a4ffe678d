"""The sparse layer as compiled loops: sort, one task an expert, combine. The equations are in `moe_np.sparse_layer`.

What makes it fast. Assignments are sorted by expert once (counting sort). A task is a whole expert: it gathers its rows
and does its products one after the other, on a BLAS of one thread, while other threads do other experts. That is faster
than one expert after the other on a BLAS of many threads, because most of these products are too small to share out.
The outputs are then summed token by token ("gather form"): no two threads write to one place.

What makes it repeatable. Which thread does a task changes nothing in it, and how the work is cut into tasks depends on
the routing alone: only an expert with more than a quarter of all rows is cut, into pieces of about an eighth, whose
weight gradients are added in order. A token's rows are added in the order of its experts. So the bits do not depend
on the number of threads.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numba import njit

from moe_np.kernels import activations
from moe_np.kernels.blas import PLAIN, TRANSPOSED, fixed, gemm
from moe_np.kernels.threads import share, threads

RELU, GELU, SWIGLU = range(3)
BATCHES = 6  # a thread: enough for all to end at the same time, few enough for the calls not to count
FEW = 1 << 21  # multiplications of a matrix that are done before a second thread is awake
SMALL = 1 << 20  # numbers that are sooner added up than shared out
KINDS = {"relu": RELU, "gelu": GELU, "swiglu": SWIGLU}


# --- memory -----------------------------------------------------------------------------------------------------------


def _none(axes, dtype):
    return fixed(np.empty((0,) * axes, dtype))


def _room(workspace, name, shape, *, dtype):
    """An array of that shape in `workspace`, which grows when it has to. Its contents are whatever was there."""
    size = math.prod(shape)
    have = workspace.get(name)
    if have is None or have.size < size or have.dtype != dtype:
        have = workspace[name] = np.empty(size, dtype)
    return have[:size].reshape(shape)


# --- sorting ----------------------------------------------------------------------------------------------------------


class Sorted(NamedTuple):
    order: np.ndarray  # (A,) the assignment at each place
    offsets: np.ndarray  # (E + 1,)
    token: np.ndarray  # (A,) by place
    weight: np.ndarray  # (A,) by place
    start: np.ndarray  # (N + 1,) token n has places[start[n]:start[n + 1]], in the order of its experts
    places: np.ndarray  # (A,)
    twice: bool  # some token has one expert twice


@njit(cache=True)
def _sort(token, expert, weight, n_tokens, n_experts):
    A = len(token)
    offsets, start = np.zeros(n_experts + 1, np.int64), np.zeros(n_tokens + 1, np.int64)
    for a in range(A):
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
    twice = False
    for i in range(A):
        n = sorted_token[i]
        p = free[n]
        free[n] += 1
        places[p] = i
        twice |= p > start[n] and expert[order[places[p - 1]]] == expert[order[i]]
    return order, offsets, sorted_token, sorted_weight, start, places, twice


def sort(token, expert, weight, n_tokens, n_experts):
    """Counting sort of the assignments by expert (twin: `sparse_layer.by_expert`), and of their places by token."""
    token, expert = fixed(token, np.int64), fixed(expert, np.int64)
    return Sorted(*_sort(token, expert, fixed(weight), n_tokens, n_experts))


class Plan(NamedTuple):
    tasks: np.ndarray  # (T, 4) expert, its first row, the end of its rows, and where its weight gradients go
    batches: list  # tasks for one call, the longest first
    longest: int  # rows: room for one task is what a thread works on, so that it stays in its cache
    extra: list  # the experts of the pieces beyond the first: their gradients stand behind those of the E experts


def plan(offsets, crew):
    """Cut the work into tasks, and put these into a few batches a thread, as equal as can be, the longest first."""
    ends = offsets.tolist()
    E, A, tasks, extra = len(ends) - 1, ends[-1], [], []
    for m in range(E):
        lo, n = ends[m], ends[m + 1] - ends[m]
        pieces = n // max(256, A // 8) if n > max(512, A // 4) else 1
        for i in range(pieces):
            tasks.append((m, lo + i * n // pieces, lo + (i + 1) * n // pieces, E + len(extra) if i else m))
            extra.extend([m] if i else [])
    load, batches = [0] * BATCHES * crew, [[] for _ in range(BATCHES * crew)]
    for t in sorted(range(len(tasks)), key=lambda t: tasks[t][1] - tasks[t][2]):
        least = load.index(min(load))
        batches[least].append(t)
        load[least] += tasks[t][2] - tasks[t][1] + 32  # reading an expert's weights takes as long as some 32 rows
    order = sorted(range(len(load)), key=lambda i: -load[i])
    batches = [np.array(batches[i], np.int64) for i in order if batches[i]]
    return Plan(np.array(tasks, np.int64), batches, max(hi - lo for _, lo, hi, _ in tasks), extra)


# --- the tasks --------------------------------------------------------------------------------------------------------


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
def _gather(lo, hi, x, token, rows):
    for i in range(lo, hi):
        n = token[i]  # read once: inside the next loop it would keep the compiler from copying in vectors
        for d in range(x.shape[1]):
            rows[i, d] = x[n, d]


@njit(cache=True, nogil=True, error_model="numpy")
def _forward_tasks(todo, tasks, x, token, w1, b1, w3, w2, b2, kind, rows, z, g, y, h):
    """For each task: gather rows, z = rows W1, (g = rows W3,) h = act(z + b1), y = h W2 + b2; h is the thread's."""
    for t in todo:
        m, lo, hi = tasks[t, 0], tasks[t, 1], tasks[t, 2]
        _gather(lo, hi, x, token, rows)
        gemm(PLAIN, PLAIN, rows[lo:hi], w1[m % len(w1)], 0, z[lo:hi])  # m % 1: a parameter that all experts share
        if kind == SWIGLU:
            gemm(PLAIN, PLAIN, rows[lo:hi], w3[m % len(w3)], 0, g[lo:hi])
            activations.swiglu_forward(lo, hi, z, g, h)
        elif kind == GELU:
            activations.gelu_forward(lo, hi, z, b1[m % len(b1)], h)
        else:
            activations.relu_forward(lo, hi, z, b1[m % len(b1)])
        gemm(PLAIN, PLAIN, z[lo:hi] if kind == RELU else h[: hi - lo], w2[m % len(w2)], 0, y[lo:hi])
        if kind != SWIGLU:
            b = b2[m % len(b2)]
            for i in range(lo, hi):
                for d in range(y.shape[1]):
                    y[i, d] += b[d]


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
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
def _backward_tasks(
    todo, tasks, dout, token, weight, order, w1, w3, w2, kind, rows, z, g, y,
    drows, dw1, db1, dw3, dw2, db2, dweight, h, dy, dh, dg,
):  # fmt: skip
    """For each task: all gradients of the expert, and of its rows. The last four arrays are this thread's own."""
    for t in todo:
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


# --- combine ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def _combine_tokens(lo, hi, rows, weight, weighted, start, places, out):
    """out_n = Σ weight · row over the places of token n (or without the weight), for n from lo to hi."""
    for n in range(lo, hi):
        out[n] = 0
        for p in range(start[n], start[n + 1]):
            i = places[p]
            if weighted:
                w = weight[i]
                for d in range(out.shape[1]):
                    out[n, d] += w * rows[i, d]
            else:
                for d in range(out.shape[1]):
                    out[n, d] += rows[i, d]


def _combine(crew, rows, weight, weighted, start, places, out):
    N, arguments = len(out), (rows, weight, weighted, start, places, out)
    if len(places) * out.shape[1] < SMALL:
        _combine_tokens(0, N, *arguments)
    else:
        parts = 2 * crew
        share(_combine_tokens, [(i * N // parts, (i + 1) * N // parts, *arguments) for i in range(parts)], [()] * crew)


# --- the two passes ---------------------------------------------------------------------------------------------------


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
    crew = threads() if A * D * H > FEW else 1
    p = plan(s.offsets, crew)
    room = functools.partial(_room, workspace, dtype=dtype)
    rows, z, y, out = room("rows", (A, D)), room("z", (A, H)), room("y", (A, Dout)), room("out", (N, Dout))
    g = room("g", (A if kind == SWIGLU else 0, H))
    h = [(room(f"h{t}", (0 if kind == RELU else p.longest, H)),) for t in range(crew)]
    w3, b1, b2 = w.get("w3", _none(3, dtype)), w.get("b1", _none(2, dtype)), w.get("b2", _none(2, dtype))
    arguments = (p.tasks, fixed(x), s.token, w["w1"], b1, w3, w["w2"], b2, kind, rows, z, g, y)
    share(_forward_tasks, [(batch, *arguments) for batch in p.batches], h)
    _combine(crew, y, s.weight, True, s.start, s.places, out)
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
    sizes = {"h": (0 if kind == RELU else n, H), "dy": (n, Dout), "dh": (n, H), "dg": (n if kind == SWIGLU else 0, H)}
    own = [[room(f"{name}{t}", size) for name, size in sizes.items()] for t in range(crew)]
    w3 = w.get("w3", _none(3, y.dtype))
    arguments = (
        *(p.tasks, fixed(dout), s.token, s.weight, s.order, w["w1"], w3, w["w2"], kind, rows, z, g, y),
        *(drows, dw["w1"], dw["b1"], dw["w3"], dw["w2"], dw["b2"], dweight),
    )
    share(_backward_tasks, [(batch, *arguments) for batch in p.batches], own)
    _combine(crew, drows, s.weight, False, s.start, s.places, dx)
    return dx, {k: _added(dw[k], p.extra, E, len(w[k])) for k in w}, dweight


def _added(dw, extra, E, length):
    """Add the pieces of a hot expert to its first one, in order; add up all experts where the parameter is shared."""
    for i, m in enumerate(extra):
        dw[m] += dw[E + i]
    return dw[:E] if length == E else dw[:E].sum(axis=0, keepdims=True)
