"""Counting sort of the assignments by expert, and the tasks into which threads divide the work.

The twin of `sort` is `by_expert` in `moe_np.layers.sparse_layer`. The letters: A assignments, N
tokens, E experts, T tasks.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.types import Array, ArrayA
from moe_np.kernels.machine.blas import all_finite, read_only
from moe_np.kernels.machine.disk_cache import njit

# An expert is cut into pieces where it has more than HOT rows and more than a quarter of all rows.
# A piece has at least PIECE rows and about an eighth of all; smaller ones multiply less well.
# Measured as the time of the layer where both of two experts get all tokens. To measure again:
#   python -m moe_np.experiments.layer_speed.thresholds machine.tasks.HOT VALUE ... --shape N,D,2
HOT = 512
PIECE = 256
MOST_PIECES = 16  # more than there can be: four experts at most are hot, and eight pieces are all


class Sorted(NamedTuple):
    """The assignments sorted by expert; a place is an index into this order."""

    order: ArrayA  # the assignment at each place
    offsets: Annotated[np.ndarray, "E + 1"]  # expert m has the places offsets[m] : offsets[m + 1]
    token: ArrayA  # by place
    weight: ArrayA  # by place
    start: Annotated[np.ndarray, "N + 1"]  # token n has places[start[n] : start[n + 1]]
    places: ArrayA  # a token's places are in the order of its experts


@njit(cache=True)
def _sort(token, expert, weight, n_tokens, n_experts):
    A = len(token)
    sound = all_finite(weight)
    offsets = np.zeros(n_experts + 1, np.int64)
    start = np.zeros(n_tokens + 1, np.int64)
    for a in range(A):
        if not (0 <= token[a] < n_tokens and 0 <= expert[a] < n_experts):
            return token, offsets, token, weight, start, token, False
        offsets[expert[a] + 1] += 1
        start[token[a] + 1] += 1
    for m in range(n_experts):
        offsets[m + 1] += offsets[m]
    for n in range(n_tokens):
        start[n + 1] += start[n]
    order = np.empty(A, np.int64)
    sorted_token = np.empty(A, np.int64)
    sorted_weight = np.empty(A, weight.dtype)
    free = offsets.copy()  # the next free place of each expert
    for a in range(A):
        i = free[expert[a]]
        free[expert[a]] += 1
        order[i] = a
        sorted_token[i] = token[a]
        sorted_weight[i] = weight[a]
    places = np.empty(A, np.int64)
    free = start.copy()  # the next free entry of each token
    for m in range(n_experts):
        for i in range(offsets[m], offsets[m + 1]):
            n = sorted_token[i]
            p = free[n]
            free[n] += 1
            places[p] = i
            # the token's place before this one belongs to an earlier expert
            sound &= p == start[n] or places[p - 1] < offsets[m]
    return order, offsets, sorted_token, sorted_weight, start, places, sound


def sort(
    token: ArrayA, expert: ArrayA, weight: ArrayA, n_tokens: int, n_experts: int
) -> Sorted | None:
    """Sort the assignments by expert, and list for each token the places of its assignments.

    None where a token or an expert does not exist, where a weight is not finite, and where a token
    has an expert twice: the caller raises the error.
    """
    token = read_only(token, np.int64)
    expert = read_only(expert, np.int64)
    *arrays, sound = _sort(token, expert, read_only(weight), n_tokens, n_experts)
    return Sorted(*arrays) if sound else None


class Plan(NamedTuple):
    """The tasks of a pass; a task is all rows of an expert, or a piece of them."""

    # for each of T tasks: its expert, its first row, the end of its rows, and the place of its
    # weight gradients: m for an expert's first piece, E and above for its other pieces
    tasks: Annotated[np.ndarray, "T, 4"]
    longest: int  # rows of the longest task
    extra: Annotated[np.ndarray, "T - E"]  # the expert whose gradients are at place E, E + 1, ...


@njit(cache=True)
def _cut(offsets):
    E = len(offsets) - 1
    A = offsets[-1]
    tasks = np.empty((E + MOST_PIECES, 4), np.int64)
    extra = np.empty(MOST_PIECES, np.int64)
    T = 0
    for m in range(E):
        lo = offsets[m]
        n = offsets[m + 1] - lo
        count = n // max(PIECE, A // 8) if n > max(HOT, A // 4) else 1
        for i in range(count):
            tasks[T, 0] = m
            tasks[T, 1] = lo + i * n // count
            tasks[T, 2] = lo + (i + 1) * n // count
            tasks[T, 3] = E + T - m - 1 if i else m
            if i:
                extra[T - m - 1] = m
            T += 1
    return tasks[:T], extra[: T - E]


def plan(offsets: Array) -> Plan:
    """Cut the work of the experts into tasks, the longest first, so that all threads end at about
    the same time. Depends on the routing only, not on the number of threads.
    """
    tasks, extra = _cut(offsets)
    tasks = tasks[np.argsort(tasks[:, 1] - tasks[:, 2], kind="stable")]
    return Plan(tasks, int(tasks[0, 2] - tasks[0, 1]), extra)
