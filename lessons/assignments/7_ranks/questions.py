"""Questions of assignment 7: a layer's experts divided among ranks, which are places in a list."""

import numpy as np

from moe_np.coursework import Question, close
from moe_np.parallel import cost

TITLE = "Assignment 7: experts on many ranks"
AFTER = "lesson 22"
HOURS = "four to five"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck")
LIBRARIES = ("numpy", "matplotlib")

SINGLE = close(1e-4, 1e-6)  # float32 will do


# --- Tokens and experts on ranks ------------------------------------------------------------------


def lists(rng, n_tokens, E, k, *, idle=(), dropped=0.0, shuffled=False):
    """token, expert: a list of assignments per rank, k different experts per token.

    idle      experts that nobody wants    dropped    share of the assignments left out
    shuffled   in no order
    """
    able = np.array([m for m in range(E) if m not in idle])
    tokens, experts = [], []
    for n in n_tokens:
        expert = able[np.argsort(rng.random((n, len(able))), axis=1)[:, :k]].reshape(-1)
        token = np.repeat(np.arange(n), k)
        kept = np.flatnonzero(rng.random(n * k) >= dropped)
        kept = rng.permutation(kept) if shuffled else kept
        tokens.append(token[kept])
        experts.append(expert[kept])
    return tokens, experts


def layouts(rng):
    """n_tokens, owner, token, expert: ranks without tokens, experts or rows, one rank, k to 4.

    Experts of a rank do not follow each other, and the last expert may be without rows.
    """
    settings = (
        ((5, 4, 6), rng.permutation([0, 1, 2, 0, 1, 2]), 2, {}),
        ((4, 5), np.array([1, 0, 1, 0]), 1, {"shuffled": True}),
        ((3, 0, 4), rng.permutation([0, 1, 1, 2, 2]), 3, {"shuffled": True}),
        ((4, 3, 5), np.array([2, 0, 2, 0, 0]), 2, {"idle": (4,), "dropped": 0.3}),
        ((6,), np.zeros(4, np.int64), 4, {"shuffled": True, "dropped": 0.2}),
        ((2, 3, 2, 3), np.array([3, 3, 1]), 1, {"idle": (0, 1)}),
        ((0, 0), np.array([1, 0]), 1, {}),
        ((3, 2), np.array([0, 1, 1]), 2, {"dropped": 1.0}),
        ((3, 4, 2), np.array([1, 0, 1, 0]), 2, {}),
    )
    made = []
    for n_tokens, owner, k, options in settings:
        token, expert = lists(rng, n_tokens, len(owner), k, **options)
        made.append((list(n_tokens), owner, token, expert))
    return made


def count_cases(rng):
    cases = [(expert, owner) for _, owner, _, expert in layouts(rng)]
    many = [rng.integers(3, size=250_000), rng.integers(3, size=5)]  # more than 16 bits hold
    return [*cases, (many, np.array([0, 0, 1]))]


def count_rows(expert, owner):
    R, E = len(expert), len(owner)
    hot = [np.asarray(m)[:, None] == np.arange(E) for m in expert]
    for_experts = np.array([h.sum(axis=0) for h in hot])
    return for_experts, for_experts @ (owner[:, None] == np.arange(R)).astype(int)


def dispatch_cases(rng):
    cases = []
    for n_tokens, owner, token, expert in layouts(rng):
        D = int(rng.integers(2, 5))
        x = [rng.normal(size=(n, D)) for n in n_tokens]
        cases.append((x, token, expert, owner))
    return cases


def _order(token, expert, owner):
    """Per rank (sender, token, assignment, expert) of its rows, in their order: four arrays."""
    sender = np.concatenate([np.full(len(t), r) for r, t in enumerate(token)])
    place = np.concatenate([np.arange(len(t)) for t in token])
    all_tokens = np.concatenate(token)
    all_experts = np.concatenate(expert)
    order = np.lexsort((place, sender, all_experts))
    rank = owner[all_experts[order]]
    columns = (sender, all_tokens, place, all_experts)
    return [[c[order][rank == s] for c in columns] for s in range(len(token))]


def dispatch(x, token, expert, owner):
    rows, numbers = [], []
    start = np.cumsum([0, *(len(part) for part in x)])
    batch = np.concatenate(x)
    for sender, its_token, _, number in _order(token, expert, owner):
        rows.append(batch[start[sender] + its_token])
        numbers.append(number)
    return rows, numbers


def combine_cases(rng):
    cases = []
    for n_tokens, owner, token, expert in layouts(rng):
        P = int(rng.integers(2, 5))
        y = [rng.normal(size=(len(part[0]), P)) for part in _order(token, expert, owner)]
        weight = [rng.uniform(0.1, 1, len(t)) for t in token]
        cases.append((y, token, expert, weight, owner, n_tokens))
    return cases


def combine(y, token, expert, weight, owner, n_tokens):
    out = [np.zeros((n, y[0].shape[1])) for n in n_tokens]
    for rows, (sender, its_token, place, _) in zip(y, _order(token, expert, owner), strict=True):
        for row, r, n, a in zip(rows, sender, its_token, place, strict=True):
            out[r][n] += weight[r][a] * row
    return out


# --- Gradients ------------------------------------------------------------------------------------


def home_cases(rng):
    """k = 2 to 6; from 3 on the order of the sum shows in most numbers, since much cancels."""
    cases = []
    settings = (
        (6, 8, 3, {}),
        (5, 4, 2, {"dropped": 0.3}),
        (7, 9, 6, {}),
        (9, 5, 4, {"dropped": 0.2}),
    )
    for N, E, k, options in settings:
        (token,), (expert,) = lists(rng, (N,), E, k, shuffled=True, **options)
        drows = rng.normal(size=(len(token), 3)) * 10.0 ** rng.integers(-8, 9, (len(token), 1))
        drows[:, 0] = rng.choice([1e16, -1e16, 1.0, 3.0], size=len(token))
        y = rng.normal(size=(len(token), 2))
        cases.append((drows, y, rng.normal(size=(N, 2)), token, expert))
    nobody = np.empty(0, np.int64)
    empty = (np.empty((0, 3)), np.empty((0, 2)), rng.normal(size=(4, 2)), nobody, nobody)
    falling = (np.array([[1e16], [1.0], [-1e16], [2.0]]), rng.normal(size=(4, 1)))
    falling += (rng.normal(size=(2, 1)), np.array([1, 1, 1, 1]), rng.permutation([9, 7, 5, 3]))
    return [*cases, empty, falling]


def gradients_at_home(drows, y, dout, token, expert):
    dx = np.zeros((len(dout), drows.shape[1]))
    for m in np.unique(expert):
        here = expert == m
        dx[token[here]] += drows[here]
    return dx, np.einsum("ap,ap->a", dout[token], y)


def compare_home(wanted, got, inputs):
    """dx to the last bit, dweight as elsewhere."""
    loose = SINGLE(wanted, (wanted[0], got[1])) if len(got) == 2 else SINGLE(wanted, got)
    return loose or close(0, 0)((wanted[0],), (got[0],))


def all_cases(rng):
    """Ranks with different numbers of tokens, some without; experts once, or with replicas."""
    settings = (
        ((5, 2, 9), ((0, 3), (1,), (4, 2))),
        ((4, 0, 1), ((2, 0), (1, 2), (2,))),
        ((3,), ((1, 0),)),
        ((0, 6), ((), (1, 0, 2))),
        ((2, 2, 2, 2), ((0, 1), (1, 0), (0, 1), (1, 0))),
    )
    cases = []
    for n_tokens, held in settings:
        held = [np.array(numbers, np.int64) for numbers in held]
        E = int(max(numbers.max(initial=0) for numbers in held)) + 1
        shapes = {"router": (4, E), "g": (4,)}
        shared = [{k: n * rng.normal(size=s) for k, s in shapes.items()} for n in n_tokens]
        experts = [rng.normal(size=(len(numbers), 4, 2)) for numbers in held]
        cases.append((shared, experts, held, list(n_tokens), E))
    return cases


def gradients_of_all(shared, experts, held, n_tokens, n_experts):
    N = sum(n_tokens)
    mean = {k: np.sum([part[k] for part in shared], axis=0) / N for k in shared[0]}
    everything = np.concatenate(experts)
    hot = np.arange(n_experts)[:, None] == np.concatenate(held)
    return mean, np.tensordot(hot.astype(float), everything, axes=1) / N


# --- Capacity and cost ----------------------------------------------------------------------------


def capacity_cases(rng):
    """Factors whose products are exact in binary, so that the ceiling is exact, too."""
    cases = []
    settings = (
        ((12, 5, 8), 4, 2, 1.0, 0.0),
        ((7, 0, 9), 4, 1, 1.25, 0.0),
        ((3, 13), 8, 2, 0.5, 0.2),
        ((16, 8), 4, 1, 1, 0.0),
        ((1, 2, 3), 8, 2, 1.0, 0.0),
        ((40, 10), 4, 2, 0.75, 0.5),
    )
    for n_tokens, E, k, factor, dropped in settings:
        _, expert = lists(rng, n_tokens, E, k, dropped=dropped, shuffled=True)
        for part in expert:  # some experts are popular
            part[rng.random(len(part)) < 0.4] = E - 1
        cases.append((expert, list(n_tokens), E, k, factor))
    alike = [np.full(n, m) for n, m in ((8, 0), (8, 1), (4, 1))]  # even over all, not on a rank
    nobody = [np.empty(0, np.int64), np.empty(0, np.int64)]
    cases += [(alike, [8, 8, 4], 2, 1, 1.0), (nobody, [0, 3], 3, 1, 1.0)]
    five = [np.full(5, 1), np.full(6, 3)]  # 5/4 and 6/4, doubled or not
    return [*cases, (five, [5, 6], 4, 1, 1.0), (five, [5, 6], 4, 1, 2.0)]


def keep_by_rank(expert, n_tokens, n_experts, k, factor):
    kept = []
    for numbers, n in zip(expert, n_tokens, strict=True):
        capacity = max(1, -int(-factor * n * k // n_experts))
        hot = numbers[:, None] == np.arange(n_experts)
        place = hot.cumsum(axis=0)[np.arange(len(numbers)), numbers]
        kept.append(place <= capacity)
    lost = sum(int((~part).sum()) for part in kept)
    return kept, lost / max(1, sum(len(part) for part in kept))


MACHINE = {"alpha": 5e-6, "beta": 25e9, "beta_node": 300e9, "F": 125e12, "B": 1.5e12}


def cost_cases(rng):
    """One rank, part of a node, a node, several; few tokens and many; short messages and long."""
    slow_node = {**MACHINE, "beta_node": 1e9, "alpha": 1e-7}
    slow_memory = {**MACHINE, "B": 1e10}
    return [
        (int(rng.integers(3000, 5000)), 2, 512, 1024, 16, 32, 8, MACHINE),
        (int(rng.integers(3, 6)), 2, 512, 1024, 64, 16, 4, MACHINE),
        (int(rng.integers(300, 500)), 1, 64, 128, 8, 1, 8, MACHINE),
        (int(rng.integers(300, 500)), 3, 256, 64, 12, 4, 8, MACHINE),
        (int(rng.integers(300, 500)), 4, 256, 64, 12, 8, 8, slow_memory),
        (int(rng.integers(300, 500)), 2, 4096, 128, 128, 16, 8, slow_node),
        (1, 4, 32, 64, 4, 2, 1, slow_memory),
        (2, 1, 1024, 4096, 256, 8, 2, MACHINE),
    ]


def layer_cost(N, k, D, H, E, R, m, machine):
    hardware = cost.Machine(
        flops=machine["F"],
        memory_bandwidth=machine["B"],
        bandwidth=machine["beta"],
        local_bandwidth=machine["beta_node"],
        node=m,
        alpha=machine["alpha"],
    )
    exchange = cost.all_to_all(2 * N * k * D, R, hardware)
    touched = cost.touched(E, k, N * R)
    expert = 3 * D * H
    seconds = cost.roofline(2 * expert * N * k, 2 * expert * touched / R, hardware)
    return exchange, touched, seconds


QUESTIONS = (
    Question("q1_counts", "count_rows", 2, count_cases, count_rows, close(0, 0)),
    Question("q2_dispatch", "dispatch", 3, dispatch_cases, dispatch, SINGLE),
    Question("q3_combine", "combine", 3, combine_cases, combine, SINGLE),
    Question("q4_home", "gradients_at_home", 3, home_cases, gradients_at_home, compare_home),
    Question("q5_all", "gradients_of_all", 3, all_cases, gradients_of_all, SINGLE),
    Question("q6_capacity", "keep_by_rank", 3, capacity_cases, keep_by_rank, SINGLE),
    Question("q7_cost", "layer_cost", 3, cost_cases, layer_cost, close(1e-4, 0)),
    Question("q8_words", None, 3),
)
