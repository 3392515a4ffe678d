"""The shared pieces of the routers: choice, capacity, checks, and the list of the routers."""

import numpy as np
import pytest

from moe_np import routing
from moe_np.base.checks import InputError
from moe_np.routing import base_assignment, contract, top_k


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
        N = rng.integers(0, 9)
        E = int(rng.integers(1, 40))
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
        expert = rng.integers(0, 4, rng.integers(0, 30))
        C = int(rng.integers(1, 8))
        taken = [0] * 4
        kept = []
        for m in expert:
            kept.append(taken[m] < C)
            taken[m] += 1
        assert contract.within_capacity(expert, 4, C).tolist() == kept


def test_k_is_checked():
    with pytest.raises(InputError, match="k: wanted at most the 4 experts there are, got 5"):
        contract.check_k(5, 4)
    with pytest.raises(InputError, match="k: wanted a whole number of at least 1, got 0"):
        contract.check_k(0, 4)


def test_demand_of_padding_is_empty():
    choice = np.array([[0, 2], [1, 2], [0, 1]])
    demand = contract.demand_of(choice, 3, np.array([True, False, True]))
    assert demand.tolist() == [[True, False, True], [False] * 3, [True, True, False]]


def test_training_and_the_generator():
    rng = np.random.default_rng(0)
    assert contract.check_training(None, None) == (False, None)
    assert contract.check_training(None, rng) == (True, rng)
    assert contract.check_training(False, rng, "noise") == (False, None)
    assert contract.check_training(True, None) == (True, None)
    assert contract.check_training(np.True_, rng) == (True, rng)
    words = "rng: wanted a numpy.random.Generator with training=True, for the jitter; got None"
    with pytest.raises(InputError, match=words):
        contract.check_training(True, None, "the jitter")


def test_the_routers_are_the_files_with_a_route():
    names = list(routing.routers())
    assert {"top_k", "hashing"} <= set(names) and names == sorted(names)
    assert not {"contract", "stages", "weighting"} & set(names)


@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "k", "factor", "wanted"),
    [(10, 1, 1, 1.1, 11), (100, 10, 1, 1.1, 11), (70, 7, 1, 1.1, 11), (3, 1, 1, 1.01, 4)],
)
def test_rounding_of_the_factor_adds_no_place(n_tokens, n_experts, k, factor, wanted):
    """1.1 · 10 is 11.000000000000002."""
    assert contract.capacity(n_tokens, n_experts, k, factor) == wanted


@pytest.mark.parametrize("k", [11, 12])
@pytest.mark.parametrize("n_tokens", [5, 40])
def test_many_of_12_experts_for_few_tokens_and_for_many(k, n_tokens):
    scores = np.random.default_rng(0).normal(size=(n_tokens, 12))
    wanted = np.argsort(-scores, axis=1)[:, :k]
    np.testing.assert_array_equal(contract.top_k(scores, k), wanted)


def test_a_capacity_factor_without_limit_is_large_or_refused():
    assert contract.capacity(8, 4, 2, 1e308) >= 8
    for factor in (10**400, np.inf, np.nan, 0, "1"):
        with pytest.raises(InputError, match="capacity_factor: wanted a finite number above 0"):
            contract.capacity(8, 4, 2, factor)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_product_that_overflows_is_named(monkeypatch, compiled):
    monkeypatch.setenv("MOE_NP_KERNELS", "" if compiled else "numpy")
    x, w = np.full((2, 3), 1e30, np.float32), np.full((3, 4), 1e20, np.float32)
    with pytest.raises(InputError, match=r"x: wanted numbers whose product with params\['w'\]"):
        top_k.route({"w": w}, x, k=2, renormalise=True)
    w[:, 0] *= -1  # a logit of −inf, although all weights are numbers
    w[:, 1:] = 1
    with pytest.raises(InputError, match=r"x: wanted numbers whose product with params\['w'\]"):
        top_k.route({"w": w}, x, k=2, renormalise=True)
    with pytest.raises(InputError, match=r"x: wanted numbers whose product with params\['w'\]"):
        base_assignment.route({"w": w}, x, training=True)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, ">f8", ">f4"])
def test_types_without_a_compiled_loop_run_in_numpy(monkeypatch, compiled, dtype):
    monkeypatch.setenv("MOE_NP_KERNELS", "" if compiled else "numpy")
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(8, 4)).astype(dtype), rng.normal(size=(6, 8)).astype(dtype)
    routing, cache = top_k.route({"w": w}, x, k=2, renormalise=True)
    exact, exact_cache = top_k.route({"w": w.astype(float)}, x.astype(float), k=2, renormalise=True)
    np.testing.assert_array_equal(routing.expert, exact.expert)
    tol = 16 * max(float(np.finfo(x.dtype).eps), np.finfo(float).eps)
    np.testing.assert_allclose(routing.weight.astype(float), exact.weight, rtol=tol, atol=tol)
    assert routing.weight.dtype == x.dtype.newbyteorder("=")
    dx, grads = top_k.route_backward(np.ones(12, x.dtype), None, cache)
    wanted, wanted_grads = top_k.route_backward(np.ones(12), None, exact_cache)
    np.testing.assert_allclose(dx.astype(float), wanted, atol=20 * tol)
    np.testing.assert_allclose(grads["w"].astype(float), wanted_grads["w"], atol=20 * tol)
