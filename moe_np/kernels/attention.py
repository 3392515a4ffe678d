"""Scores, softmax and sums of attention as compiled loops; the equations are in
`moe_np.layers.attention`.

A task is a key head of a sequence. Its keys are turned, and its values gathered, once. Then the
queries of its group pass by, a block at a time, with those keys only to which one of them may
attend: under a causal mask about half. The scores of a block stay in the cache between the product
with the keys, the softmax and the product with the values; no array of all scores exists. The
backward pass computes them again, from the logarithm of each query's sum.

The scores of a block have one row per key and one column per query, its lane. So the loops of the
softmax run over as many numbers in each row, whatever the mask, and no sum goes along a vector.

A task writes to places of its own, and computes the same in any thread, so the bits do not depend
on the number of threads. With a bias, whose gradient is a sum over the sequences, a task is a key
head of all sequences, one after the other.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base.machine import blas_threads, one_blas_thread
from moe_np.base.types import ArrayBTHd
from moe_np.kernels.machine.blas import NO_TRANS, TRANS, gemm, read_only
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.exp import FUSED, exp
from moe_np.kernels.machine.heads import angles, gather, heads, scatter
from moe_np.kernels.machine.jit_options import ENTRY, INLINE, INNER, PART
from moe_np.kernels.machine.thread_pool import add, share

LANES = 64  # queries of a block, over all heads of a group
FEW = 1 << 18  # multiplications up to which one thread works alone


class Problem(NamedTuple):
    """Sizes and `Pattern` of `moe_np.layers.attention`, with empty arrays for what is not there."""

    G: int  # query heads per key head
    S: int
    step: int  # positions of a block
    before: int
    after: int
    offset: int
    valid: Annotated[np.ndarray, "B, S"]
    bias: Annotated[np.ndarray, "Hq, T, S"]
    angles: tuple
    key_angles: tuple
    no_angles: tuple


class Block(NamedTuple):
    """Scratch of a thread for a block: one lane per query, G heads with the same n positions."""

    turned: Annotated[np.ndarray, "S, d"]  # the keys
    values: Annotated[np.ndarray, "S, d"]
    rows: Annotated[np.ndarray, "lanes, d"]  # queries, turned and scaled
    sums: Annotated[np.ndarray, "lanes, d"]  # Σ P v; backward: dO
    top: Annotated[np.ndarray, "lanes"]  # largest score; backward: L
    total: Annotated[np.ndarray, "lanes"]  # Σ eˢ⁻ᵐ; backward: δ
    first: Annotated[np.ndarray, "lanes"]  # the keys of a lane, padding apart
    last: Annotated[np.ndarray, "lanes"]
    scores: Annotated[np.ndarray, "S · lanes"]


def _problem(q, k, pattern):
    T, Hq, d = q.shape[1:]
    S, Hk = k.shape[1:3]
    valid = np.empty((0, 0), bool) if pattern.valid is None else pattern.valid
    bias = np.empty((0, 0, 0)) if pattern.bias is None else pattern.bias
    return Problem(
        *(Hq // Hk, S, max(1, min(T, LANES // (Hq // Hk)))),
        *(pattern.before, pattern.after, pattern.offset),
        *(read_only(valid), read_only(bias, q.dtype)),
        *(angles(a, d, q.dtype) for a in (pattern.rotary, pattern.key_rotary, None)),
    )


def _block(problem, d, dtype):
    lanes = problem.step * problem.G
    lanes = LANES if LANES // 2 < lanes < LANES else lanes  # a loop over 64 has no remainder
    S = problem.S
    shapes = ((S, d), (S, d), (lanes, d), (lanes, d), (lanes,), (lanes,))
    limits = (np.empty(lanes, np.int64), np.empty(lanes, np.int64))
    return Block(*(np.zeros(shape, dtype) for shape in shapes), *limits, np.empty(S * lanes, dtype))


def _threads(q, problem, tasks):
    return 1 if q.size * problem.S < FEW else max(1, min(tasks, blas_threads()))


# --- a block of queries ---------------------------------------------------------------------------


@njit(**INNER)
def _begin(b, group, i, n, q, scale, problem, block):
    """Gather the queries of positions i to i + n: -> the keys [lo, hi) of all of them together."""
    G = problem.G
    for g in range(G):
        rows = block.rows[g * n : (g + 1) * n]
        gather(q, b, group * G + g, i, i + n, problem.angles, scale, rows)
    block.rows[G * n :] = 0
    lo = problem.S
    hi = 0
    for m in range(len(block.first)):
        position = problem.offset + i + (m % n if m < G * n else 0)
        first = min(max(position - problem.before, 0), problem.S)
        last = max(first, min(position + problem.after + 1, problem.S))
        block.first[m] = first
        block.last[m] = last
        lo = min(lo, first)
        hi = max(hi, last)
    return lo, max(lo, hi)


@njit(**INNER)
def _hide(b, group, i, n, lo, problem, block, scores):
    """Add the bias, and write −∞ where a lane may not attend to a key."""
    begin = 0  # the keys of every lane: [begin, end)
    end = problem.S
    for m in range(len(block.first)):
        begin = max(begin, block.first[m])
        end = min(end, block.last[m])
    for j in range(len(scores)):
        row = scores[j]
        if len(problem.bias):
            for m in range(problem.G * n):
                row[m] += problem.bias[group * problem.G + m // n, i + m % n, lo + j]
        if len(problem.valid) and not problem.valid[b, lo + j]:
            row[:] = -np.inf
        elif lo + j < begin or lo + j >= end:
            _hide_outside(lo + j, block.first, block.last, row)


@njit(**INLINE)
def _hide_outside(key, first, last, row):
    for m in range(len(row)):
        row[m] = row[m] if (first[m] <= key) & (key < last[m]) else row.dtype.type(-np.inf)


@njit(**INNER, fastmath=FUSED)
def _softmax(scores, top, total):
    """The scores of a lane become eˢ⁻ᵐ with its largest score m in `top`; `total` is their sum."""
    top[:] = -np.inf
    total[:] = 0
    for j in range(len(scores)):
        row = scores[j]
        for m in range(len(top)):
            top[m] = row[m] if row[m] > top[m] else top[m]
    for m in range(len(top)):
        top[m] = top[m] if top[m] > -np.inf else top.dtype.type(0)
    for j in range(len(scores)):
        row = scores[j]
        for m in range(len(top)):
            e = exp(row[m] - top[m])
            e = e if row[m] > -np.inf else row.dtype.type(0)
            row[m] = e
            total[m] += e


@njit(**INNER, fastmath=FUSED)
def _softmax_backward(scores, dscores, log_sum, delta):
    """The scores of a lane become P = eˢ⁻ᴸ; dscores, the gradients of P, become those of S."""
    for j in range(len(scores)):
        row = scores[j]
        drow = dscores[j]
        for m in range(len(log_sum)):
            p = exp(row[m] - log_sum[m])
            p = p if row[m] > -np.inf else row.dtype.type(0)
            row[m] = p
            drow[m] = p * (drow[m] - delta[m])


# --- forward --------------------------------------------------------------------------------------


@njit(**ENTRY)
def _forward(counter, q, k, v, scale, problem, out, log_sum, block):
    """A key head of a sequence at a time."""
    B, T, Hq, d = out.shape
    G = problem.G
    step = problem.step
    lanes = len(block.rows)
    unit = out.dtype.type(1)
    zero = np.int64(0)  # not 0, whose type is one of its own: `gather` is compiled per type
    task = add(counter, 0, 1)
    while task < B * (Hq // G):
        b, group = task // (Hq // G), task % (Hq // G)
        gather(k, b, group, zero, problem.S, problem.key_angles, unit, block.turned)
        gather(v, b, group, zero, problem.S, problem.no_angles, unit, block.values)
        for i in range(0, T, step):
            n = min(step, T - i)
            lo, hi = _begin(b, group, i, n, q, scale, problem, block)
            scores = block.scores[: (hi - lo) * lanes].reshape(hi - lo, lanes)
            gemm(NO_TRANS, TRANS, block.turned[lo:hi], block.rows, 0, scores)
            _hide(b, group, i, n, lo, problem, block, scores)
            _softmax(scores, block.top, block.total)
            gemm(TRANS, NO_TRANS, scores, block.values[lo:hi], 0, block.sums)
            for m in range(G * n):
                h, t = group * G + m // n, i + m % n
                total = block.total[m]
                log_sum[b, h, t] = block.top[m] + np.log(total)
                inverse = unit / total if total > 0 else total
                for e in range(d):
                    out[b, t, h, e] = inverse * block.sums[m, e]
        task = add(counter, 0, 1)
    return True


def forward(
    q: ArrayBTHd, k: ArrayBTHd, v: ArrayBTHd, pattern: Any
) -> tuple[ArrayBTHd, Annotated[np.ndarray, "B, Hq, T"]]:
    """`attend_numpy` of `moe_np.layers.attention`, equal to rounding."""
    B, T, Hq, d = q.shape
    dtype = q.dtype
    problem = _problem(q, k, pattern)
    out = np.empty((B, T, Hq, d), dtype)
    log_sum = np.empty((B, Hq, T), dtype)
    threads = _threads(q, problem, B * k.shape[2])
    scratch = [(_block(problem, d, dtype),) for _ in range(threads)]
    arguments = (heads(q), heads(k), heads(v), dtype.type(pattern.scale), problem, out, log_sum)
    with one_blas_thread(), np.errstate(all="ignore"):  # the loop may run in the interpreter
        share(_forward, arguments, scratch)
    return out, log_sum


# --- backward -------------------------------------------------------------------------------------


class Gradients(NamedTuple):
    """What the backward pass fills."""

    q: ArrayBTHd
    k: ArrayBTHd
    v: ArrayBTHd
    bias: Annotated[np.ndarray, "Hq, T, S"]  # empty without a bias


class DBlock(NamedTuple):
    """More scratch of a thread, for the backward pass."""

    turned: Annotated[np.ndarray, "S, d"]  # gradients of the keys
    values: Annotated[np.ndarray, "S, d"]
    scores: Annotated[np.ndarray, "S · lanes"]


@njit(**INNER, fastmath={"reassoc", "contract", "nsz"})
def _arriving(b, group, i, n, kept, problem, block):
    """dO into `sums`, L into `top` and δ = Σ dO · O into `total`, lane by lane."""
    dout, out, log_sum = kept
    block.sums[problem.G * n :] = 0
    block.top[problem.G * n :] = 0
    block.total[problem.G * n :] = 0
    for m in range(problem.G * n):
        h, t = group * problem.G + m // n, i + m % n
        arriving = dout[b, t, h]
        output = out[b, t, h]
        row = block.sums[m]
        delta = row.dtype.type(0)
        for e in range(len(row)):
            row[e] = arriving[e]
        for e in range(len(row)):  # without a store: the same order of sums at any address
            delta += arriving[e] * output[e]
        block.total[m] = delta
        block.top[m] = max(log_sum[b, h, t], -row.dtype.type(1e30))


@njit(**PART)
def _head_backward(b, group, q, kept, scale, problem, gradients, block, dblock):
    """The gradients of a key head of a sequence and of its queries."""
    T = gradients.q.shape[1]
    G = problem.G
    step = problem.step
    lanes = len(block.rows)
    dblock.turned[:] = 0
    dblock.values[:] = 0
    for i in range(0, T, step):
        n = min(step, T - i)
        lo, hi = _begin(b, group, i, n, q, scale, problem, block)
        _arriving(b, group, i, n, kept, problem, block)
        scores = block.scores[: (hi - lo) * lanes].reshape(hi - lo, lanes)
        dscores = dblock.scores[: (hi - lo) * lanes].reshape(hi - lo, lanes)
        gemm(NO_TRANS, TRANS, block.turned[lo:hi], block.rows, 0, scores)
        _hide(b, group, i, n, lo, problem, block, scores)
        gemm(NO_TRANS, TRANS, block.values[lo:hi], block.sums, 0, dscores)
        _softmax_backward(scores, dscores, block.top, block.total)
        if len(problem.bias):
            for j in range(hi - lo):
                for m in range(G * n):
                    gradients.bias[group * G + m // n, i + m % n, lo + j] += dscores[j, m]
        gemm(NO_TRANS, NO_TRANS, scores, block.sums, 1, dblock.values[lo:hi])
        gemm(NO_TRANS, NO_TRANS, dscores, block.rows, 1, dblock.turned[lo:hi])
        gemm(TRANS, NO_TRANS, dscores, block.turned[lo:hi], 0, block.rows)
        for g in range(G):
            to = gradients.q[b, :, group * G + g]
            scatter(block.rows[g * n : (g + 1) * n], i, problem.angles, scale, to)


@njit(**ENTRY)
def _backward(counter, q, k, v, kept, scale, problem, gradients, block, dblock):
    """A key head of a sequence at a time, or with a bias of all sequences, one after the other."""
    B, _, Hk, _ = gradients.k.shape
    unit = gradients.k.dtype.type(1)
    together = B if len(problem.bias) else 1
    zero = np.int64(0)  # as in `_forward`
    begin = add(counter, 0, together)
    while begin < B * Hk:
        for task in range(begin, begin + together):
            group, b = task // B, task % B
            gather(k, b, group, zero, problem.S, problem.key_angles, unit, block.turned)
            gather(v, b, group, zero, problem.S, problem.no_angles, unit, block.values)
            _head_backward(b, group, q, kept, scale, problem, gradients, block, dblock)
            scatter(dblock.turned, zero, problem.key_angles, unit, gradients.k[b, :, group])
            scatter(dblock.values, zero, problem.no_angles, unit, gradients.v[b, :, group])
        begin = add(counter, 0, together)
    return True


def backward(
    dheads: ArrayBTHd, cache: Any
) -> tuple[ArrayBTHd, ArrayBTHd, ArrayBTHd, Annotated[np.ndarray, "Hq, T, S"] | None]:
    """`attend_backward_numpy` of `moe_np.layers.attention`, equal to rounding."""
    q = cache.q
    k = cache.k
    pattern = cache.pattern
    d = q.shape[3]
    dtype = q.dtype
    problem = _problem(q, k, pattern)
    gradients = Gradients(
        *(np.empty(a.shape, dtype) for a in (q, k, cache.v)), np.zeros(problem.bias.shape, dtype)
    )
    tasks = k.shape[2] * (len(q) if pattern.bias is None else 1)
    scratch = []
    for _ in range(_threads(q, problem, tasks)):
        block = _block(problem, d, dtype)
        shapes = (block.turned.shape, block.values.shape, block.scores.shape)
        scratch.append((block, DBlock(*(np.empty(shape, dtype) for shape in shapes))))
    kept = tuple(read_only(a, dtype) for a in (dheads, cache.heads_out, cache.log_sum))
    arrays = (heads(q), heads(k), heads(cache.v))
    with one_blas_thread(), np.errstate(all="ignore"):
        arguments = (*arrays, kept, dtype.type(pattern.scale), problem, gradients)
        share(_backward, arguments, scratch)
    dbias = None if pattern.bias is None else gradients.bias
    return gradients.q, gradients.k, gradients.v, dbias
