"""Expert choice: the experts pick, with and without a cap on a token's experts."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import expert_choice
from tests.support.routers import Case

CASES = {
    "expert_choice": Case(expert_choice, {"capacity_factor": 2.0}, causal=False, full=False),
    "expert_choice capped": Case(
        expert_choice, {"capacity_factor": 1.5, "cap": 2}, causal=False, full=False
    ),
    "expert_choice dykstra": Case(
        expert_choice,
        {"capacity_factor": 1.5, "cap": 2, "solver": "dykstra"},
        causal=False,
        full=False,
    ),
}


def problem(seed=0, N=12, D=4, E=3):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(D, E))}, rng.normal(size=(N, D))


def rows(routing):
    return list(zip(routing.token.tolist(), routing.expert.tolist(), strict=True))


def test_worked_by_hand():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    routing, _ = expert_choice.route(
        {"w": np.eye(2)}, np.log(probs), capacity_factor=1.0
    )  # C = 4·1/2 = 2
    # expert 0 takes tokens 0 and 1, expert 1 takes tokens 3 and 2, though token 2 would rather have
    # gone to expert 0
    assert rows(routing) == [(0, 0), (1, 0), (2, 1), (3, 1)]
    np.testing.assert_allclose(
        routing.weight, [0.9, 0.8, 0.3, 0.6], rtol=1e-12
    )  # S itself, not renormalised
    routing, _ = expert_choice.route({"w": np.eye(2)}, np.log(probs), capacity_factor=1.5)
    # C = 3: tokens 1 and 2 have two experts, their better one first
    assert rows(routing) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 1)]


def test_equals_a_naive_loop():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (params, x) = problem(seed, N=int(rng.integers(1, 20)))
        factor = float(rng.uniform(0.3, 3))
        routing, _ = expert_choice.route(params, x, capacity_factor=factor)
        S = numerics.softmax(x @ params["w"])
        C = min(len(x), max(1, int(np.ceil(factor * len(x) / 3))))
        expected = {
            (int(n), m)
            for m in range(3)
            for n in sorted(range(len(x)), key=lambda n, m=m: -S[n, m])[:C]
        }
        assert set(rows(routing)) == expected
        assert (np.bincount(routing.expert, minlength=3) == C).all(), "every expert is equally full"
        np.testing.assert_array_equal(routing.weight, S[routing.token, routing.expert])


def test_capacity_is_rounded_up_and_no_more_than_the_tokens():
    params, x = problem(N=7)
    assert len(expert_choice.route(params, x, capacity_factor=2.0)[0].token) == 3 * 5  # ceil(14/3)
    assert len(expert_choice.route(params, x, capacity_factor=0.01)[0].token) == 3 * 1
    assert len(expert_choice.route(params, x, capacity_factor=50)[0].token) == 3 * 7


def test_a_capacity_factor_of_e_is_the_dense_mixture():
    params, x = problem()
    routing, _ = expert_choice.route(params, x, capacity_factor=3)
    dense = np.zeros((12, 3))
    dense[routing.token, routing.expert] = routing.weight
    np.testing.assert_allclose(dense, numerics.softmax(x @ params["w"]), rtol=1e-12)


def test_one_expert_takes_all_with_weight_1():
    routing, _ = expert_choice.route(*problem(E=1), capacity_factor=1.0)
    assert routing.token.tolist() == list(range(12)) and (routing.weight == 1).all()


def test_errata_11_the_lowest_token_wins_a_tie():
    routing, _ = expert_choice.route({"w": np.zeros((4, 3))}, problem()[1], capacity_factor=0.5)
    assert rows(routing) == [(n, m) for n in range(2) for m in range(3)]


def test_errata_13_a_later_token_takes_an_earlier_one_s_place():
    probs = np.array([[0.7, 0.3], [0.2, 0.8]])
    alone, _ = expert_choice.route({"w": np.eye(2)}, np.log(probs), capacity_factor=1.0)
    assert rows(alone) == [(0, 0), (1, 1)]
    later = np.log(np.vstack([probs[:1], [[0.9, 0.1]]]))
    routing, _ = expert_choice.route({"w": np.eye(2)}, later, capacity_factor=1.0)
    assert rows(routing) == [(0, 1), (1, 0)], "the future changed token 0's expert"


def test_an_unpicked_token_gets_no_gradient():
    params, x = problem()
    routing, cache = expert_choice.route(params, x, capacity_factor=0.5)
    unpicked = np.setdiff1d(np.arange(12), routing.token)
    dx, _ = expert_choice.route_backward(np.ones(len(routing.token)), None, cache)
    assert len(unpicked) and (dx[unpicked] == 0).all() and (dx[routing.token] != 0).all()


# --- the cap --------------------------------------------------------------------------------------


def brute_force(S, C, b):
    """The best sum over all plans."""
    N, E = S.shape
    best = -np.inf
    for sets in itertools.product(itertools.combinations(range(N), C), repeat=E):
        if max(sum(n in s for s in sets) for n in range(N)) <= b:
            best = max(best, sum(S[list(s), m].sum() for m, s in enumerate(sets)))
    return best


@pytest.mark.parametrize(
    ("N", "E", "C", "b"), [(4, 2, 2, 1), (5, 3, 2, 2), (6, 3, 2, 1), (4, 3, 2, 2)]
)
def test_the_exact_plan_is_the_best_of_all(N, E, C, b):
    for seed in range(5):
        S = numerics.softmax(2 * np.random.default_rng(seed).normal(size=(N, E)))
        plan = expert_choice.exact(S, C, b)
        assert (plan.sum(axis=0) == C).all() and plan.sum(axis=1).max() <= b
        assert (S * plan).sum() == pytest.approx(brute_force(S, C, b), rel=1e-9)


def test_a_cap_binds_and_a_loose_one_does_not():
    params, x = problem(N=60, E=6)
    free, _ = expert_choice.route(params, x, capacity_factor=2.0)
    assert np.bincount(free.token).max() > 3
    for cap in (2, 3):
        routing, _ = expert_choice.route(params, x, capacity_factor=2.0, cap=cap)
        assert np.bincount(routing.token).max() == cap and (np.bincount(routing.expert) == 20).all()
        assert routing.weight.sum() < free.weight.sum()
    most = int(np.bincount(free.token).max())
    assert most < 6, "so that the solver has to run"
    loose, _ = expert_choice.route(params, x, capacity_factor=2.0, cap=most)
    assert rows(loose) == rows(free)


def test_ties_give_a_whole_plan_too():
    plan = expert_choice.exact(np.full((6, 3), 1 / 3), 4, 2)
    assert (plan.sum(axis=0) == 4).all() and (plan.sum(axis=1) == 2).all()


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # SciPy 1.12
def test_the_relaxed_plan_solves_the_problem_with_the_entropy():
    """Against a general optimiser, at a temperature where all three constraints bind."""
    S = 3 * np.random.default_rng(3).normal(size=(5, 3))
    C = 2
    b = 1.6
    lam = 0.4
    plan = np.exp(expert_choice.relaxed(S, C, b, temperature=lam, rounds=3000)).T
    np.testing.assert_allclose(plan.sum(axis=0), C, rtol=1e-9)
    assert plan.max() < 1 + 1e-9 and plan.sum(axis=1).max() < b + 1e-9
    assert (plan > 1 - 1e-6).any() and (plan.sum(axis=1) > b - 1e-6).any()

    def loss(a):
        return -(S.ravel() @ a) + lam * (a * np.log(a)).sum()

    solution = minimize(
        loss,
        np.full(15, 0.4),
        jac=lambda a: -S.ravel() + lam * (np.log(a) + 1),
        bounds=[(1e-9, 1)] * 15,
        constraints=[
            {"type": "eq", "fun": lambda a: a.reshape(5, 3).sum(axis=0) - C},
            {"type": "ineq", "fun": lambda a: b - a.reshape(5, 3).sum(axis=1)},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solution.success
    np.testing.assert_allclose(plan, solution.x.reshape(5, 3), atol=1e-5)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_cap_and_a_bound_that_do_not_bind_change_nothing_in_the_relaxed_plan(rounds):
    """Each expert's C places go to the tokens by a softmax."""
    S = 0.1 * np.random.default_rng(0).normal(size=(6, 3))
    log_plan = expert_choice.relaxed(S, 2, 3, temperature=0.5, rounds=rounds)
    np.testing.assert_allclose(np.exp(log_plan), 2 * numerics.softmax(S.T / 0.5), rtol=1e-12)


def test_dykstra_comes_to_the_exact_plan():
    for seed in range(3):
        S = numerics.softmax(np.random.default_rng(seed).normal(size=(24, 4)))
        plan = expert_choice.dykstra(S, 12, 3, temperature=3e-3, rounds=5000)
        assert np.array_equal(plan, expert_choice.exact(S, 12, 3))


def test_after_100_rounds_dykstra_still_leaves_tokens_over_the_cap():
    S = numerics.softmax(np.random.default_rng(0).normal(size=(256, 8)))
    over = [(expert_choice.dykstra(S, 64, 2, rounds=r).sum(axis=1) > 2).mean() for r in (100, 3000)]
    assert 0.2 < over[0] < 0.35 and over[1] < 0.03
    assert expert_choice.exact(S, 64, 2).sum(axis=1).max() == 2


def test_dykstra_in_float32_and_by_name():
    params, x = problem(N=40)
    small = {"w": params["w"].astype(np.float32)}
    options = {"capacity_factor": 1.5, "cap": 2, "solver": "dykstra", "valid": np.arange(40) < 30}
    routing, _ = expert_choice.route(small, x.astype(np.float32), **options)
    assert (np.bincount(routing.expert) == 15).all() and routing.token.max() < 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cap": 1}, "cap: wanted at least 2 for 3 experts that take 8 of 12 tokens, got 1"),
        ({"cap": 0}, "cap: wanted a whole number of at least 1, got 0"),
        ({"cap": 2, "solver": "greedy"}, "solver: wanted one of exact, dykstra; got 'greedy'"),
        (
            {"valid": np.ones(3, bool)},
            r"valid: wanted bool of shape \(12,\), got bool of shape \(3,\)",
        ),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        expert_choice.route(*problem(), capacity_factor=2.0, **options)
