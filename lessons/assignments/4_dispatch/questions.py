"""Questions of assignment 4: the dispatch of a sparse layer, right and fast."""

import importlib.util
import math

import numpy as np

from moe_np.coursework import Question, close
from moe_np.layers import experts, sparse_layer
from moe_np.routing import contract

TITLE = "Assignment 4: dispatch, from a loop to a compiled kernel"
AFTER = "lesson 10"
HOURS = "three to four"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck")
LIBRARIES = ("numpy", "matplotlib", "numba", "scipy")
# where Numba is missing, question 7 does not ask for speed
NUMBA = importlib.util.find_spec("numba") is not None

SINGLE = close(1e-4, 1e-6)  # float32 will do


def near(wanted, got, inputs):
    """Right within 1e-3, or within 1e-5 of the largest value: for sums over many rows."""
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    arrays = [array for part in parts for array in _arrays(part)]
    return close(1e-3, 1e-5 * max(1, *(abs(a).max(initial=0) for a in arrays)))(wanted, got)


def _arrays(part):
    return part.values() if isinstance(part, dict) else (part,)


def near_rows(wanted, got, inputs):
    """Right within 1e-3, or within 1e-5 of the largest value of its row."""
    largest = abs(wanted).max(axis=1, initial=1, keepdims=True)
    return close(1e-3, 1e-5 * largest)(wanted, got)


# --- Layers and lists -----------------------------------------------------------------------------


def parameters(rng, E, D, H, dtype=np.float64):
    shapes = {"w1": (E, D, H), "w3": (E, D, H), "w2": (E, H, D)}
    return {name: (rng.normal(size=s) / np.sqrt(s[1])).astype(dtype) for name, s in shapes.items()}


def assignments(rng, N, E, k, *, idle=(), absent=(), dropped=0.0, shuffled=False):
    """(token, expert): k different experts per token.

    idle      experts that get no token           absent   tokens that are not in the list
    dropped   share of the assignments left out   shuffled   in no order
    """
    able = np.array([m for m in range(E) if m not in idle])
    expert = able[np.argsort(rng.random((N, len(able))), axis=1)[:, :k]].ravel()
    token = np.repeat(np.arange(N), k)
    kept = np.flatnonzero((rng.random(N * k) >= dropped) & ~np.isin(token, absent))
    kept = rng.permutation(kept) if shuffled else kept
    return token[kept], expert[kept]


def layer(rng, N, D, H, E, k, dtype=np.float64, **options):
    """The inputs of a layer's forward pass."""
    token, expert = assignments(rng, N, E, k, **options)
    x = rng.normal(size=(N, D)).astype(dtype)
    params = parameters(rng, E, D, H, dtype)
    weight = rng.uniform(0.1, 1, len(token)).astype(dtype)
    return params, x, token, expert, weight


def layer_cases(rng):
    """Lists that are whole, empty, with holes, in no order, with idle experts; k from 1 to E.

    The third and the fourth have totals in the thousands, of all tokens and of some.
    """
    far = layer(rng, 6, 3, 5, 4, 2)
    far[1][:] *= 1000
    some_far = layer(rng, 6, 3, 5, 4, 2, shuffled=True)
    some_far[1][::2] *= 1000
    return [
        layer(rng, 9, 5, 4, 3, 2),
        layer(rng, 7, 3, 6, 4, 1),
        far,
        some_far,
        layer(rng, 12, 4, 3, 6, 3, idle=(0, 5), absent=(3, 11), dropped=0.3, shuffled=True),
        layer(rng, 8, 2, 3, 4, 1, idle=(0, 1, 3), absent=(0,)),
        layer(rng, 5, 3, 2, 3, 3, shuffled=True),
        layer(rng, 3, 2, 2, 2, 1, absent=(0, 1, 2)),
    ]


def routing(token, expert, weight):
    return contract.Routing(token, expert, weight, None, None, None)


def layer_forward(params, x, token, expert, weight):
    routed = routing(token, expert, weight)
    return sparse_layer.forward_numpy(params, x, routed, experts.SWIGLU, len(params["w1"]))[0]


def one_by_one(params, x, token, expert, weight):
    """One assignment after the other: what a fast layer is raced against."""
    w1, w3, w2 = params["w1"], params["w3"], params["w2"]
    out = np.zeros_like(x)
    for a in range(len(token)):
        n, m = token[a], expert[a]
        z = x[n] @ w1[m]
        out[n] += weight[a] * ((z / (1 + np.exp(-z)) * (x[n] @ w3[m])) @ w2[m])
    return out


def race_cases(rng):
    return [*layer_cases(rng), layer(rng, 8192, 16, 32, 128, 2, np.float32)]


def backward_cases(rng):
    """In the last case a gradient by differences of the loss would take minutes."""
    cases = [case for i, case in enumerate(layer_cases(rng)) if i not in (2, 3)]
    cases.append(layer(rng, 600, 16, 32, 16, 2))
    return [(*case, rng.normal(size=case[1].shape)) for case in cases]


def layer_backward(params, x, token, expert, weight, dout):
    routed = routing(token, expert, weight)
    return sparse_layer.backward_numpy(
        dout, sparse_layer.forward_numpy(params, x, routed, experts.SWIGLU, len(params["w1"]))[1]
    )


# --- Capacity, sorting, adding up -----------------------------------------------------------------


def overflow_cases(rng):
    """Capacity factors whose products are exact in binary, so that the ceiling is exact, too."""
    cases = []
    settings = ((1, 8, 2, 1.25, 0), (13, 4, 2, 1.0, 0.25), (20, 8, 1, 1.25, 0), (31, 3, 2, 0.5, 0))
    # N k / E whole or not x factor whole or not, as a float and as an int
    settings += ((8, 2, 1, 1.0, 0), (12, 4, 2, 1.5, 0), (9, 4, 1, 2, 0), (10, 4, 1, 1.5, 0))
    settings += ((12, 4, 2, 0.75, 0.2), (8, 4, 1, 0.25, 0))
    for N, E, k, factor, dropped in settings:
        token, expert = assignments(rng, N, E, k, dropped=dropped)
        cases.append((token, expert, rng.uniform(0.1, 1, len(token)), N, E, k, factor))
    for N, E, factor in ((8, 2, 1.0), (9, 2, 1.0), (7, 5, 1.25), (600, 2, 1.0)):
        expert = np.full(N, rng.integers(E))  # everybody to one expert
        cases.append((np.arange(N), expert, rng.uniform(0.1, 1, N), N, E, 1, factor))
    token, expert = assignments(rng, 16, 4, 2, absent=(12, 13, 14, 15))  # but N is 16
    cases.append((token, np.where(rng.random(24) < 0.7, 1, expert), rng.random(24), 16, 4, 2, 1.0))
    nobody = np.empty(0, np.int64)
    cases.append((nobody, nobody, np.empty(0), 5, 3, 1, 1.25))
    N, E, k = 18, 4, 2  # 15 tokens choose expert 2 first and 3 second; C = 12
    token = np.tile(np.arange(N), k)  # first choices of all tokens, then second ones
    expert = np.where(rng.permutation(N) < 15, [[2], [3]], [[1], [0]]).ravel()
    weight = rng.uniform(0.1, 1, N * k)
    cases.append((token, expert, weight, N, E, k, 1.25))
    shorter = (token[:26], expert[:26], weight[:26])  # C is 12 for these as well
    return [*cases, (*shorter, N, E, k, 1.25)]


def drop_overflow(token, expert, weight, n_tokens, n_experts, k, factor):
    capacity = contract.capacity(n_tokens, n_experts, k, factor)
    fits = contract.within_capacity(expert, n_experts, capacity)
    return token[fits], expert[fits], weight[fits]


def sort_cases(rng):
    gaps = rng.choice([1, 4, 6], size=15)  # experts 0, 2, 3, 5, 7 get nothing
    cases = [(rng.integers(5, size=12), 5), (gaps, 8), (rng.integers(4, size=400), 4)]
    cases += [(np.full(6, 2), 3), (np.zeros(5, np.int64), 3), (np.zeros(3, np.int64), 1)]
    many = rng.integers(3, size=70_000)  # more than 16 bits hold
    return [*cases, (many, 4), (rng.integers(300, size=40), 300), (np.empty(0, np.int64), 3)]


def sort_by_expert(expert, n_experts):
    order, offsets = sparse_layer.by_expert(expert, n_experts)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return order, offsets, place


def combine_cases(rng):
    """Tokens with none, one and several rows; the first and the last token with none; no rows."""
    several = np.array([1, 4, 1, 3, 1, 4, 6])
    return [
        (rng.normal(size=(10, 3)), rng.permutation(np.repeat(np.arange(5), 2)), 5),
        (rng.normal(size=(7, 4)), rng.permutation(several), 8),
        (rng.normal(size=(30, 2)), rng.integers(9, size=30), 11),
        (rng.normal(size=(6, 1)), np.full(6, 2), 4),
        (rng.normal(size=(5, 3)), rng.permutation(5), 5),
        (np.empty((0, 3)), np.empty(0, np.int64), 2),
    ]


def combine(rows, token, n_tokens):
    return (token == np.arange(n_tokens)[:, None]).astype(rows.dtype) @ rows


# --- Places in buffers ----------------------------------------------------------------------------


def choices(rng, N, E, K, favour):
    """choice (N, K) int16: the K best experts per token; `favour` makes some experts popular."""
    logits = favour * np.linspace(1, 0, E)[rng.permutation(E)] + rng.gumbel(size=(N, E))
    return np.argsort(-logits, axis=1)[:, :K].astype(np.int16)


def places_cases(rng):
    cases = []
    settings = ((12, 4, 2, 1, 1), (9, 3, 3, 2, 0.6), (40, 6, 4, 2, 1), (5, 8, 1, 3, 1))
    for N, E, K, favour, factor in (*settings, (300, 8, 3, 2, 1)):
        cases.append((choices(rng, N, E, K, favour), E, math.ceil(factor * N / E)))
    same = np.tile(rng.permutation(5)[:3].astype(np.int16), (14, 1))  # everybody wants the same
    cases += [(same, 5, 1), (same, 5, 4), (same, 5, 14), (same, 5, 20)]
    cases.append((choices(rng, 70_000, 2, 2, 1), 2, 34_000))  # rows that 16 bits do not hold
    return [*cases, (choices(rng, 50_000, 16, 8, 1), 16, math.ceil(1.25 * 50_000 / 16))]


def find_places(choice, n_experts, capacity):
    """Round by round, each round sorted by expert."""
    N, K = choice.shape
    expert = np.full(N, -1)
    row = np.full(N, -1)
    filled = np.zeros(n_experts, int)
    left = np.arange(N)
    for j in range(K):
        wanted = choice[left, j]
        _, offsets, place = sort_by_expert(wanted, n_experts)
        free_row = filled[wanted] + place - offsets[wanted]
        fits = free_row < capacity
        expert[left[fits]] = wanted[fits]
        row[left[fits]] = free_row[fits]
        filled = np.minimum(filled + np.diff(offsets), capacity)
        left = left[~fits]
    return expert, row


def places_by_loop(choice, n_experts, capacity):
    """The rule in Python loops: what a kernel is raced against."""
    N, K = choice.shape
    expert = np.full(N, -1)
    row = np.full(N, -1)
    filled = np.zeros(n_experts, int)
    for j in range(K):
        for n in range(N):
            m = choice[n, j]
            if expert[n] < 0 and filled[m] < capacity:
                expert[n] = m
                row[n] = filled[m]
                filled[m] += 1
    return expert, row


QUESTIONS = (
    Question("q1_loop", "by_assignment", 2, layer_cases, layer_forward, near_rows),
    Question("q2_overflow", "drop_overflow", 3, overflow_cases, drop_overflow, SINGLE),
    Question("q3_sort", "sort_by_expert", 2, sort_cases, sort_by_expert, close(0, 0)),
    Question("q4_combine", "combine", 2, combine_cases, combine, SINGLE),
    Question(
        *("q5_blocks", "sparse_forward", 4, race_cases, layer_forward, near_rows),
        baseline=one_by_one,
        faster=4,
    ),
    Question("q6_backward", "sparse_backward", 4, backward_cases, layer_backward, near),
    Question(
        *("q7_places", "find_places", 3, places_cases, find_places, close(0, 0)),
        seconds=30,  # Numba's compiler is at work in the first call
        baseline=places_by_loop if NUMBA else None,
        faster=5,
    ),
)
