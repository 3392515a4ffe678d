"""What holds for every router alike: gradients, permutations, conservation, causality, the ends of
the range.
"""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.routing import contract
from tests.support.routers import CASES, route, setup

every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
learned = pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.learned], ids=[n for n, c in CASES.items() if c.learned]
)


@learned
@pytest.mark.parametrize("seed", range(5))
def test_gradient(case, seed):
    params, x = setup(case, seed)
    rng = np.random.default_rng(seed + 100)
    routing, cache = route(case, params, x, seed)
    dweight, dlogits = rng.normal(size=routing.weight.shape), rng.normal(size=routing.logits.shape)

    def loss(p):
        moved, _ = route(case, {k: v for k, v in p.items() if k != "x"}, p["x"], seed)
        assert np.array_equal(moved.expert, routing.expert) and np.array_equal(
            moved.token, routing.token
        ), "a tie"
        return (moved.weight * dweight).sum() + (moved.logits * dlogits).sum()

    dx, grads = case.router.route_backward(dweight, dlogits, cache)
    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors


@learned
def test_without_a_balance_loss_dlogits_is_none(case):
    params, x = setup(case)
    routing, cache = route(case, params, x, 1)
    dweight = np.random.default_rng(3).normal(size=routing.weight.shape)
    dx, grads = case.router.route_backward(dweight, None, cache)
    dx0, grads0 = case.router.route_backward(dweight, np.zeros_like(routing.logits), cache)
    np.testing.assert_allclose(dx, dx0, rtol=1e-12, atol=1e-15)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads0[name], rtol=1e-12, atol=1e-15)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_types_and_read_only_input(case, dtype):
    params, x = setup(case, dtype=dtype)
    for a in (x, *params.values()):
        a.flags.writeable = False
    routing, cache = route(case, params, x, 0)
    A = len(routing.token)
    assert routing.expert.shape == routing.weight.shape == (A,)
    assert routing.probs.shape == routing.demand.shape == (12, 4)
    assert routing.token.dtype.kind == routing.expert.dtype.kind == "i"
    assert routing.weight.dtype == routing.probs.dtype == dtype and routing.demand.dtype == bool
    assert routing.weight.min(initial=0) >= 0
    if case.learned:
        dx, grads = case.router.route_backward(np.ones(A, dtype), None, cache)
        assert dx.dtype == dtype and dx.shape == x.shape
        assert {k: (g.shape, g.dtype) for k, g in grads.items()} == {
            k: (p.shape, dtype) for k, p in params.items()
        }


@every
def test_conservation(case):
    params, x = setup(case)
    routing, _ = route(case, params, x, 0)
    pairs = set(zip(routing.token.tolist(), routing.expert.tolist(), strict=True))
    assert len(pairs) == len(routing.token), "a token visits an expert once"
    assert all(routing.demand[n, m] for n, m in pairs), "nothing is assigned that was not asked for"
    if case.full:
        assert len(pairs) == routing.demand.sum()


@every
def test_evaluation_is_deterministic(case):
    params, x = setup(case)
    a, b = route(case, params, x)[0], route(case, params, x)[0]
    assert all(np.array_equal(u, v) for u, v in zip(a, b, strict=True) if u is not None)


@every
def test_errata_13_causality(case):
    """Other later tokens change nothing for the earlier ones, unless the case says that the router
    is not causal.
    """

    def early(routing):
        mine = routing.token < 6
        return sorted(
            zip(
                routing.token[mine],
                routing.expert[mine],
                routing.weight[mine].round(12),
                strict=True,
            )
        )

    same = True
    for seed in range(10):
        params, x = setup(case, seed)
        later = np.concatenate([x[:6], np.random.default_rng(seed + 50).normal(size=x[6:].shape)])
        same &= early(route(case, params, x, seed)[0]) == early(route(case, params, later, seed)[0])
    assert same == case.causal


@every
def test_no_tokens(case):
    params, x = setup(case, n_tokens=0)
    routing, cache = route(case, params, x, 0)
    assert len(routing.token) == 0 and routing.probs.shape == (0, 4)
    if case.learned:
        dx, grads = case.router.route_backward(np.zeros(0), None, cache)
        assert dx.shape == (0, 5) and all((g == 0).all() for g in grads.values())


@every
def test_huge_logits_stay_finite(case):
    params, x = setup(case)
    routing, cache = route(case, {k: 1e4 * p for k, p in params.items()}, x, 0)
    assert np.isfinite(routing.weight).all() and np.isfinite(routing.probs).all()
    if case.learned:
        dx, grads = case.router.route_backward(np.ones(len(routing.weight)), None, cache)
        assert np.isfinite(dx).all() and all(np.isfinite(g).all() for g in grads.values())


@every
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:, :3], "x: wanted 5 features a token"),
        (lambda x: x[0], r"x: wanted shape \(N, D\), got \(5,\)"),
        (
            lambda x: np.where(x == x[0, 0], np.nan, x),
            r"x: wanted finite numbers, got nan at index \(0, 0\)",
        ),
        (lambda x: x.astype(np.float32), "x: wanted float64, the type of params"),
    ],
)
def test_bad_tokens(case, change, words):
    params, x = setup(case)
    if not params:
        pytest.skip("no parameters to fit to")
    with pytest.raises(InputError, match=words):
        route(case, params, change(x), 0)


# --- the shared pieces ----------------------------------------------------------------------------


def test_errata_09_capacity_rounds_up_and_is_at_least_one():
    assert contract.capacity(4, 8, 1, 1.0) == 1
    assert contract.capacity(9, 8, 1, 1.0) == 2
    assert contract.capacity(0, 8, 1, 1.0) == 1
    assert contract.capacity(1000, 8, 2, 1.25) == 313


@pytest.mark.parametrize("factor", [0, -1.0, np.inf, np.nan, "1"])
def test_capacity_factor_is_checked(factor):
    with pytest.raises(InputError, match="capacity_factor: wanted a finite number above 0"):
        contract.capacity(8, 2, 1, factor)


def test_errata_11_the_lowest_index_wins_a_tie():
    assert contract.top_k(np.zeros((2, 5)), 3).tolist() == [[0, 1, 2]] * 2
    assert contract.top_k(np.array([[1.0, 3, 3, 2]]), 3).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", [2, 5, None])
def test_errata_11_top_k_is_a_stable_sort(dtype, values):
    """Few different values: ties everywhere, also across the k-th place; −inf, ±0, rows in any
    memory order.
    """
    rng = np.random.default_rng(0)
    for _ in range(60):
        N, E = rng.integers(0, 9), int(rng.integers(1, 40))
        scores = (
            rng.normal(size=(N, E))
            if values is None
            else rng.integers(-(values // 2), values, (N, E)) * -1.0
        )
        scores[rng.random((N, E)) < rng.choice([0, 0.1, 0.9])] = -np.inf
        scores = np.asarray(scores, dtype, order=rng.choice(["C", "F"]))
        scores.flags.writeable = False
        for k in {1, min(2, E), int(rng.integers(1, E + 1)), E}:
            expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(contract.top_k(scores, k), expected)


@pytest.mark.parametrize("k", [1, 2, 8, 9, 20, 39])
def test_errata_11_a_single_tie_across_the_last_place(k):
    """The k-th and the next are equal and nothing else is: only the look at one more than k shows
    it.
    """
    rng = np.random.default_rng(k)
    ranked = np.arange(40.0)[::-1].copy()
    ranked[k] = ranked[k - 1]
    scores = np.array([rng.permutation(ranked) for _ in range(50)])
    np.testing.assert_array_equal(
        contract.top_k(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k]
    )


def test_within_capacity_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        expert, C = rng.integers(0, 4, rng.integers(0, 30)), int(rng.integers(1, 8))
        taken, kept = [0] * 4, []
        for m in expert:
            kept.append(taken[m] < C)
            taken[m] += 1
        assert contract.within_capacity(expert, 4, C).tolist() == kept


def test_k_is_checked():
    with pytest.raises(InputError, match="k: wanted at most the 4 experts there are, got 5"):
        contract.check_k(5, 4)
    with pytest.raises(InputError, match="k: wanted a whole number of at least 1, got 0"):
        contract.check_k(0, 4)
