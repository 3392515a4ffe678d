"""Switch routing: one expert, capacity, jitter."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import switch, top_k
from tests.support.routers import Case

CASES = {
    "switch": Case(switch, {}),
    "switch jitter": Case(switch, {"jitter": 0.1}, noisy=True),
    "switch capacity": Case(switch, {"capacity_factor": 1.0}, full=False),
    "switch both": Case(
        switch, {"capacity_factor": 0.8, "jitter": 0.1}, noisy=True, full=False, fewest=2
    ),
}


def problem(seed=0, N=20, D=4, E=4):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(D, E))}, rng.normal(size=(N, D))


def test_errata_08_dropped_tokens_are_no_rows():
    wanted = np.array([0, 0, 0, 1, 0])
    x = np.log(np.where(np.arange(2) == wanted[:, None], 0.8, 0.2))
    routing, _ = switch.route({"w": np.eye(2)}, x, capacity_factor=1.0)  # C = ceil(5/2) = 3
    assert routing.token.tolist() == [0, 1, 2, 3] and routing.expert.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(routing.weight, 0.8, rtol=1e-12)
    assert np.array_equal(routing.demand, np.arange(2) == wanted[:, None]), (
        "the fifth token did ask"
    )


def test_errata_32_capacity_equals_a_naive_loop():
    for seed in range(20):
        params, x = problem(seed, N=int(np.random.default_rng(seed).integers(1, 30)))
        routing, _ = switch.route(params, x, capacity_factor=1.25)
        C = max(1, int(np.ceil(1.25 * len(x) / 4)))
        taken = [0] * 4
        rows = []
        for n, m in enumerate(np.argmax(x @ params["w"], axis=1)):
            if taken[m] < C:
                rows.append((n, m))
                taken[m] += 1
        assert list(zip(routing.token, routing.expert, strict=True)) == rows


def test_errata_09_a_short_sequence_is_not_dropped():
    params, x = problem(N=1, E=8)
    assert len(switch.route(params, x, capacity_factor=1.0)[0].token) == 1


def test_without_capacity_it_is_top_1_not_renormalised():
    params, x = problem()
    ours, cache = switch.route(params, x)
    other, other_cache = top_k.route(params, x, k=1, renormalise=False)
    for a, b in zip(ours, other, strict=True):
        np.testing.assert_allclose(
            a, b, rtol=1e-12
        )  # a compiled top-k gate differs in the last bits
    dweight = np.arange(20.0)
    dx, grads = switch.route_backward(dweight, None, cache)
    dx0, grads0 = top_k.route_backward(dweight, None, other_cache)
    np.testing.assert_allclose(dx, dx0, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(grads["w"], grads0["w"], rtol=1e-12, atol=1e-15)


def test_errata_03_the_weight_is_the_full_softmax_and_every_logit_hears_from_it():
    params, x = problem()
    routing, cache = switch.route(params, x)
    np.testing.assert_allclose(
        routing.weight, numerics.softmax(x @ params["w"]).max(axis=1), rtol=1e-12
    )
    _, grads = switch.route_backward(np.where(routing.token == 3, 1.0, 0.0), None, cache)
    assert (grads["w"] != 0).all()


def test_a_dropped_token_sends_no_gradient():
    params, x = problem()
    routing, cache = switch.route(params, x, capacity_factor=0.5)
    dropped = np.setdiff1d(np.arange(20), routing.token)
    assert 0 < len(dropped) < 20
    dx, _ = switch.route_backward(np.ones(len(routing.token)), None, cache)
    assert (dx[dropped] == 0).all() and (dx[routing.token] != 0).all()


def test_errata_10_and_errata_32_jitter_is_the_routers_alone():
    x = np.random.default_rng(0).uniform(1, 2, size=(500, 4))
    x.flags.writeable = False
    before = x.copy()
    routing, cache = switch.route({"w": np.eye(4)}, x, jitter=0.01, rng=np.random.default_rng(1))
    ratio = routing.logits / x
    assert np.array_equal(x, before) and not np.array_equal(cache.seen, x)
    assert (
        0.99 <= ratio.min() < 0.9905
        and 1.0095 < ratio.max() <= 1.01
        and abs(ratio.mean() - 1) < 1e-3
    )
    calm, _ = switch.route({"w": np.eye(4)}, x, jitter=0.01)
    assert np.array_equal(calm.logits, x), "without a generator there is none"


def test_one_expert():
    routing, _ = switch.route({"w": np.ones((3, 1))}, np.ones((4, 3)), capacity_factor=1.0)
    assert (routing.weight == 1).all() and len(routing.token) == 4


def test_all_tokens_on_one_expert_fill_it_and_no_more():
    routing, _ = switch.route(
        {"w": np.array([[0.0, 1, 0, 0]])}, np.ones((20, 1)), capacity_factor=2.0
    )
    assert routing.expert.tolist() == [1] * 10 and routing.token.tolist() == list(range(10))


def test_start_is_a_cut_normal_of_small_scale():
    w = switch.init(np.random.default_rng(0), 64, 500)["w"]
    sd = np.sqrt(0.1 / 64)
    assert abs(np.abs(w).max() / (2 * sd) - 1) < 1e-3
    assert (
        abs(w.std() / (0.8796 * sd) - 1) < 0.02
    )  # the standard deviation of a normal cut at two is .8796


@pytest.mark.parametrize("jitter", [-0.1, 1.0, "a", np.nan])
def test_jitter_is_checked(jitter):
    params, x = problem()
    with pytest.raises(
        InputError, match="jitter: wanted a finite number of at least 0 and below 1"
    ):
        switch.route(params, x, jitter=jitter)


@pytest.mark.parametrize("jitter", [np.float32(0.5), np.float64(0.5), np.int64(0)])
def test_numbers_of_numpy_are_numbers(jitter):
    params, x = problem()
    routing, _ = switch.route(params, x, jitter=jitter, rng=np.random.default_rng(1))
    wanted, _ = switch.route(params, x, jitter=float(jitter), rng=np.random.default_rng(1))
    np.testing.assert_array_equal(routing.logits, wanted.logits)


def test_the_initialisation_is_cut_at_two_deviations():
    w = switch.init(np.random.default_rng(0), 100, 500)["w"]
    deviation = np.sqrt(0.1 / 100)
    assert 1.99 * deviation < np.abs(w).max() <= 2 * deviation
    assert abs(w.mean()) < 0.001 and w.std() == pytest.approx(0.8796 * deviation, rel=0.01)
    scaled = switch.init(np.random.default_rng(0), 100, 500, scale=1.0)["w"]
    np.testing.assert_allclose(scaled, w / np.sqrt(0.1), rtol=1e-12)
