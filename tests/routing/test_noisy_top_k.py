"""Noisy top-k and its load estimator."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import balance
from moe_np.routing import noisy_top_k, top_k
from tests.support.draws import Fixed
from tests.support.routers import Case

AWAY_FROM_ZERO = {"scale": 1.0}
CASES = {
    "noisy_top_k": Case(noisy_top_k, {"k": 2}, AWAY_FROM_ZERO, noisy=True, fewest=2),
    "noisy_top_k epsilon": Case(
        noisy_top_k, {"k": 3, "noise_epsilon": 1e-2}, AWAY_FROM_ZERO, noisy=True, fewest=3
    ),
    "noisy_top_k k=E": Case(noisy_top_k, {"k": 4}, AWAY_FROM_ZERO, noisy=True, fewest=4),
}


def problem(seed=0, N=7, D=4, E=5, scale=1.0):
    rng = np.random.default_rng(seed)
    return noisy_top_k.init(rng, D, E, scale=scale), rng.normal(size=(N, D))


def test_hand_worked():
    params = {
        "w": np.eye(3),
        "w_noise": np.zeros((3, 3)),
    }  # the scale of all noise is softplus(0) = log 2 = .6931
    routing, cache = noisy_top_k.route(
        params, np.array([[2.0, 1.0, 0.0]]), k=2, rng=Fixed([0, 0, 1])
    )
    np.testing.assert_allclose(routing.logits, [[2, 1, 0.693147]], atol=1e-6)
    assert routing.expert.tolist() == [0, 1]
    np.testing.assert_allclose(routing.weight, [0.731059, 0.268941], atol=1e-6)
    load, P = noisy_top_k.load_forward(cache)
    # experts 0 and 1 have to beat expert 2 at .6931, expert 2 has to beat expert 1 at 1
    np.testing.assert_allclose(P, [[ndtr(1.885390), ndtr(0.442695), ndtr(-1.442695)]], atol=1e-6)
    np.testing.assert_allclose(load, [0.970311, 0.671007, 0.074554], atol=2e-6)


def test_noise_epsilon_of_the_authors_code_adds_to_the_scale():
    params = {"w": np.zeros((1, 2)), "w_noise": np.zeros((1, 2))}
    routing, _ = noisy_top_k.route(
        params, np.ones((1, 1)), k=2, noise_epsilon=0.01, rng=Fixed([1, -2])
    )
    np.testing.assert_allclose(
        routing.logits, [[np.log(2) + 0.01, -2 * (np.log(2) + 0.01)]], rtol=1e-12
    )


def test_errata_01_load_estimator_is_unbiased():
    params, x = problem(3)
    draws, k = 60_000, 2
    for token in x[:3]:
        routing, cache = noisy_top_k.route(
            params, np.tile(token, (draws, 1)), k=k, rng=np.random.default_rng(1)
        )
        load, P = noisy_top_k.load_forward(cache)
        frequency = np.bincount(routing.expert, minlength=5) / draws
        np.testing.assert_allclose(load / draws, frequency, atol=0.008)
        assert abs(P.sum(axis=1).mean() - k) < 0.01
        # the threshold that counts expert i among its own rivals is far too low in load
        kth = np.sort(cache.noisy, axis=1)[:, -k, None]
        assert ndtr((cache.clean - kth) / cache.sigma).sum(axis=1).mean() < k - 0.2


def test_errata_01_each_probability_is_over_the_experts_own_noise():
    params, x = problem(5, N=3)
    _, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(2))
    _, P = noisy_top_k.load_forward(cache)
    draws = np.random.default_rng(3).normal(size=20_000)
    for n in range(3):
        for i in range(5):
            threshold = np.sort(np.delete(cache.noisy[n], i))[-2]  # the second best of the others
            redrawn = cache.clean[n, i] + cache.sigma[n, i] * draws
            assert abs((redrawn > threshold).mean() - P[n, i]) < 0.012


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 4), st.integers(3, 6), st.data())
def test_errata_02_gradient_of_the_load(seed, N, D, E, data):
    k = data.draw(st.integers(2, E - 1))
    params, x = problem(seed, N, D, E)
    rng = np.random.default_rng(seed)
    _, cache = noisy_top_k.route(params, x, k=k, rng=np.random.default_rng(seed))
    gaps = -np.diff(-np.sort(-cache.noisy, axis=1), axis=1)
    assume(gaps.min() > 5e-3)
    dload = rng.normal(size=E)

    def loss(p):
        inner = {name: p[name] for name in params}
        return (
            noisy_top_k.load_forward(
                noisy_top_k.route(inner, p["x"], k=k, rng=np.random.default_rng(seed))[1]
            )[0]
            * dload
        ).sum()

    dx, grads = noisy_top_k.load_backward(dload, cache)
    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, rng, step=1e-4)
    size = {name: np.abs(g).max() for name, g in {**grads, "x": dx}.items()}
    assert all(error < 1e-7 or size[name] < 1e-4 for name, error in errors.items()), errors


def test_errata_02_the_threshold_is_not_a_constant():
    params, x = problem(0, N=40)
    _, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(4))
    dload = np.random.default_rng(5).normal(size=5)
    _, grads = noisy_top_k.load_backward(dload, cache)
    order = np.sort(cache.noisy, axis=1)[:, ::-1]
    threshold = np.where(cache.noisy >= order[:, 1:2], order[:, 2:3], order[:, 1:2])
    z = (cache.clean - threshold) / cache.sigma
    slope = dload * np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / cache.sigma
    held = {"w": x.T @ slope, "w_noise": x.T @ (-slope * z * numerics.sigmoid(cache.raw))}
    for name in held:
        assert np.linalg.norm(held[name] - grads[name]) > 0.4 * np.linalg.norm(grads[name]), name


def test_importance_and_load_losses_train_both_matrices():
    params, x = problem(7)

    def forward(p, seed=8):
        inner = {name: p[name] for name in params}
        routing, cache = noisy_top_k.route(inner, p["x"], k=2, rng=np.random.default_rng(seed))
        return routing, cache, noisy_top_k.load_forward(cache)[0]

    def loss(p):
        routing, _, load = forward(p)
        return balance.importance(routing).value + balance.cv_squared(load)[0]

    routing, cache, load = forward({**params, "x": x})
    dweight = balance.importance(routing).dweight
    dload = balance.cv_squared(load)[1]
    dx, grads = noisy_top_k.route_backward(dweight, None, cache, dload=dload)
    errors = gradient_error(
        loss, {**params, "x": x}, {**grads, "x": dx}, np.random.default_rng(0), step=1e-4
    )
    assert max(errors.values()) < 1e-7, errors
    assert all(np.abs(g).max() > 1e-3 for g in grads.values())
    apart = (
        noisy_top_k.route_backward(dweight, None, cache)[1],
        noisy_top_k.load_backward(dload, cache)[1],
    )
    for name in grads:
        np.testing.assert_allclose(grads[name], apart[0][name] + apart[1][name], atol=1e-13)


def test_errata_10_without_a_generator_there_is_no_noise_and_load_is_the_count():
    params, x = problem(1, N=30)
    params["w_noise"] -= (
        1e3  # a scale of exactly 0 for half of the tokens: nothing may divide by it
    )
    routing, cache = noisy_top_k.route(params, x, k=2)
    clean, _ = top_k.route({"w": params["w"]}, x, k=2, renormalise=True)
    assert np.array_equal(routing.expert, clean.expert)
    np.testing.assert_allclose(routing.weight, clean.weight, rtol=1e-12)
    load, P = noisy_top_k.load_forward(cache)
    assert np.array_equal(load, np.bincount(routing.expert, minlength=5)) and np.array_equal(
        P, routing.demand
    )
    dx, grads = noisy_top_k.route_backward(np.arange(60.0), None, cache, dload=np.arange(5.0))
    dx0, grads0 = top_k.route_backward(
        np.arange(60.0), None, top_k.route({"w": params["w"]}, x, k=2, renormalise=True)[1]
    )
    np.testing.assert_allclose(dx, dx0, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(grads["w"], grads0["w"], rtol=1e-10, atol=1e-13)
    assert (grads["w_noise"] == 0).all()


def test_errata_10_the_noise_has_weights_of_its_own():
    params, x = problem(2)
    cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(0))[1]
    np.testing.assert_allclose(cache.sigma, np.log1p(np.exp(x @ params["w_noise"])), rtol=1e-12)
    np.testing.assert_allclose(cache.noisy - x @ params["w"], cache.noise * cache.sigma, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_noise_scale_that_underflows_makes_p_a_step(dtype):
    params, x = problem(1, N=30)
    params = {"w": params["w"].astype(dtype), "w_noise": (params["w_noise"] - 1e4).astype(dtype)}
    routing, cache = noisy_top_k.route(params, x.astype(dtype), k=2, rng=np.random.default_rng(0))
    assert (cache.sigma == 0).any()
    load, P = noisy_top_k.load_forward(cache)
    silent = (cache.sigma == 0).all(axis=1)
    assert silent.any() and np.array_equal(P[silent], routing.demand[silent])
    dx, grads = noisy_top_k.load_backward(np.arange(5.0), cache)
    assert load.dtype == P.dtype == dx.dtype == dtype
    assert np.isfinite(dx).all() and all(
        np.isfinite(g).all() and g.dtype == dtype for g in grads.values()
    )


def test_errata_11_zero_start():
    params = noisy_top_k.init(np.random.default_rng(0), 4, 5)
    assert all((p == 0).all() for p in params.values())
    x = np.ones((4000, 4))
    routing, _ = noisy_top_k.route(params, x, k=2)
    assert routing.expert.reshape(-1, 2).tolist() == [[0, 1]] * 4000, (
        "a tie goes to the lowest index"
    )
    routing, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(0))
    np.testing.assert_allclose(
        np.bincount(routing.expert) / 4000, 0.4, atol=0.03
    )  # no signal and some noise
    np.testing.assert_allclose(noisy_top_k.load_forward(cache)[0] / 4000, 0.4, atol=0.03)


def test_k_equal_to_e_keeps_everything():
    params, x = problem(0, E=4)
    routing, cache = noisy_top_k.route(params, x, k=4, rng=np.random.default_rng(0))
    gates = np.zeros((7, 4))
    gates[routing.token, routing.expert] = routing.weight
    np.testing.assert_allclose(gates, numerics.softmax(routing.logits), rtol=1e-12)
    load, P = noisy_top_k.load_forward(cache)
    assert (P == 1).all() and (load == 7).all()
    dx, grads = noisy_top_k.load_backward(np.arange(4.0), cache)
    assert (dx == 0).all() and all((g == 0).all() for g in grads.values())


def test_errata_04_one_of_several_experts_is_refused_and_a_single_one_is_not():
    params, x = problem()
    with pytest.raises(InputError, match="k: wanted at least 2, got 1"):
        noisy_top_k.route(params, x, k=1, rng=np.random.default_rng(0))
    routing, _ = noisy_top_k.route(
        {k: p[:, :1] for k, p in params.items()}, x, k=1, rng=np.random.default_rng(0)
    )
    assert (routing.weight == 1).all() and len(routing.token) == 7


def test_padding_adds_nothing_to_the_load():
    params, x = problem(4, N=9)
    valid = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0], bool)
    both = [noisy_top_k.route(params, x, k=2, valid=valid, rng=np.random.default_rng(6))[1]]
    both.append(noisy_top_k.route(params, x[valid], k=2, rng=np.random.default_rng(6))[1])
    (load, P), (load0, P0) = map(noisy_top_k.load_forward, both)
    np.testing.assert_allclose(load, load0, rtol=1e-12)
    np.testing.assert_allclose(P[valid], P0, rtol=1e-12)
    assert (P[~valid] == 0).all()
    (dx, grads), (dx0, grads0) = (noisy_top_k.load_backward(np.arange(5.0), c) for c in both)
    assert (dx[~valid] == 0).all()
    np.testing.assert_allclose(dx[valid], dx0, atol=1e-13)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads0[name], atol=1e-13)


@pytest.mark.parametrize("epsilon", [np.nan, -5, 1j, "0", -1e308])
def test_noise_epsilon_is_checked(epsilon):
    rng = np.random.default_rng(0)
    params = noisy_top_k.init(rng, 4, 4)
    with pytest.raises(InputError, match="noise_epsilon: wanted a finite number of at least 0"):
        noisy_top_k.route(params, np.ones((2, 4)), k=2, noise_epsilon=epsilon, rng=rng)


def test_the_initialisation_is_0_unless_a_scale_is_given():
    first = noisy_top_k.init(np.random.default_rng(0), 4, 3)
    assert list(first) == ["w", "w_noise"] and not first["w"].any() and not first["w_noise"].any()
    drawn = np.random.default_rng(0).normal(size=(2, 4, 3))
    scaled = noisy_top_k.init(np.random.default_rng(0), 4, 3, scale=3.0)
    np.testing.assert_allclose(scaled["w"], drawn[0] * 1.5, rtol=1e-14)
    np.testing.assert_allclose(scaled["w_noise"], drawn[1] * 1.5, rtol=1e-14)
