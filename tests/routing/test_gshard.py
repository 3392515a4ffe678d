"""GShard's top-2 gate against its algorithm line by line."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import gshard, top_k
from tests.support.routers import Case

NOT_FULL = {"noisy": True, "full": False, "fewest": 2}
CASES = {
    "gshard": Case(gshard, {}, **NOT_FULL),
    "gshard capacity": Case(gshard, {"capacity_factor": 0.75}, causal=False, **NOT_FULL),
    "gshard code": Case(
        gshard, {"capacity_factor": 0.75, "variant": "code"}, causal=False, **NOT_FULL
    ),
}


def algorithm_1(gates, C, rnd, variant):
    """Lepikhin et al. 2020, Algorithm 1, one token at a time. gates (S, E) -> {(s, e): weight}."""
    G = {}
    c = np.zeros(gates.shape[1], int)
    top = np.argsort(-gates, axis=1, kind="stable")[:, :2]
    for s, (e1, e2) in enumerate(top):
        if c[e1] < C:
            G[s, e1] = gates[s, e1] / (gates[s, e1] + gates[s, e2])
        c[e1] += 1
    for s, (e1, e2) in enumerate(top):
        g2 = gates[s, e2] / (gates[s, e1] + gates[s, e2])
        sent = 2 * g2 > rnd[s]
        if c[e2] < C and sent:
            G[s, e2] = g2
        if sent or variant == "paper":
            c[e2] += 1
    return G


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_it_equals_the_algorithm(variant):
    differs = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        N = int(rng.integers(1, 25))
        E = int(rng.integers(2, 6))
        w = rng.normal(size=(3, E))
        x = rng.normal(size=(N, 3))
        C = max(1, int(np.ceil(0.8 * 2 * N / E)))
        rnd = np.random.default_rng(seed + 1).random(N)
        expected = {v: algorithm_1(numerics.softmax(x @ w), C, rnd, v) for v in ("paper", "code")}
        routing, _ = gshard.route(
            {"w": w}, x, capacity_factor=0.8, variant=variant, rng=np.random.default_rng(seed + 1)
        )
        rows = list(zip(routing.token, routing.expert, strict=True))
        assert rows == [(s, e) for s in range(N) for e in routing.expert[routing.token == s]], (
            "token by token"
        )
        assert set(rows) == set(expected[variant])
        np.testing.assert_allclose(routing.weight, [expected[variant][r] for r in rows], rtol=1e-12)
        differs += expected["paper"].keys() != expected["code"].keys()
    assert differs > 5, "the two variants must be told apart by this test"


def test_first_choices_come_before_second_ones():
    # three tokens, C = 2: the first token wants expert 0 second, the other two want it first
    gates = np.array([[0.3, 0.6, 0.1], [0.6, 0.1, 0.3], [0.5, 0.1, 0.4]])
    routing, _ = gshard.route({"w": np.eye(3)}, np.log(gates), capacity_factor=1.0)
    pairs = list(zip(routing.token, routing.expert, strict=True))
    assert pairs == [(0, 1), (1, 0), (1, 2), (2, 0), (2, 2)]
    assert routing.demand[0].tolist() == [True, True, False]


def test_errata_03_gates_are_renormalised_before_capacity():
    # both tokens want expert 0 first and it has one place: the second token keeps only its g2, and
    # keeps it below 1
    gates = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    routing, _ = gshard.route({"w": np.eye(3)}, np.log(gates), capacity_factor=0.5)
    assert list(zip(routing.token, routing.expert, strict=True)) == [(0, 0), (0, 1), (1, 2)]
    np.testing.assert_allclose(routing.weight, [2 / 3, 1 / 3, 4 / 9], rtol=1e-12)


def test_a_dropped_choice_still_shares_its_gradient():
    gates = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    _, cache = gshard.route({"w": np.eye(3)}, np.log(gates), capacity_factor=0.5)
    dx, _ = gshard.route_backward(np.array([0.0, 0.0, 1.0]), None, cache)
    np.testing.assert_allclose(
        dx, [[0, 0, 0], [-20 / 81, 0, 20 / 81]], atol=1e-12
    )  # g2 = 4/9, g1 = 5/9


@pytest.mark.parametrize("p2", [0.05, 0.2, 0.45])
def test_the_second_expert_is_asked_with_probability_twice_its_gate(p2):
    x = np.log(np.tile([1 - p2 - 0.01, p2, 0.01], (20_000, 1)))
    routing, _ = gshard.route({"w": np.eye(3)}, x, rng=np.random.default_rng(0))
    assert (
        abs((routing.expert == 1).mean() * len(routing.expert) / 20_000 - min(1, 2 * p2 / 0.99))
        < 0.012
    )
    assert (routing.expert == 0).sum() == 20_000 and routing.demand.sum() == len(routing.expert)


def test_without_a_generator_it_is_top_2_renormalised():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 5))}
    x = rng.normal(size=(9, 3))
    ours = gshard.route(params, x)[0]
    other = top_k.route(params, x, k=2, renormalise=True)[0]
    for a, b in zip(ours, other, strict=True):
        np.testing.assert_allclose(
            a, b, rtol=1e-12
        )  # a compiled top-k gate differs in the last bits


def test_errata_11_ties_go_to_the_lowest_index():
    routing, _ = gshard.route({"w": np.zeros((2, 4))}, np.ones((3, 2)))
    assert routing.expert.tolist() == [0, 1] * 3 and (routing.weight == 0.5).all()


def test_errata_08_no_expert_takes_more_than_its_places():
    rng = np.random.default_rng(1)
    routing, _ = gshard.route(
        {"w": rng.normal(size=(3, 4))}, rng.normal(size=(40, 3)), capacity_factor=0.5
    )
    load = np.bincount(routing.expert, minlength=4)
    assert load.max() == 10 and routing.demand.sum() == 80 > len(routing.token)


def test_bad_arguments():
    with pytest.raises(InputError, match="at least 2 experts"):
        gshard.route({"w": np.ones((2, 1))}, np.ones((3, 2)))
    with pytest.raises(InputError, match="variant: wanted one of paper, code"):
        gshard.route({"w": np.ones((2, 3))}, np.ones((3, 2)), variant="tensorflow")
    with pytest.raises(InputError, match="n_experts: wanted a whole number of at least 2"):
        gshard.init(np.random.default_rng(0), 3, 1)


def test_the_initialisation_is_normal_with_deviation_scale_over_the_root_of_d():
    drawn = np.random.default_rng(0).normal(size=(4, 3))
    first = gshard.init(np.random.default_rng(0), 4, 3)["w"]
    np.testing.assert_array_equal(first, drawn / 2)
    scaled = gshard.init(np.random.default_rng(0), 4, 3, scale=3.0)["w"]
    np.testing.assert_allclose(scaled, drawn * 1.5, rtol=1e-14)
