"""The dense softmax gate."""

import numpy as np

from moe_np.base import numerics
from moe_np.routing import dense, top_k
from tests.support.routers import Case

CASES = {"dense": Case(dense, {})}


def test_hand_worked():
    routing, _ = dense.route({"w": np.log([[1.0, 2.0, 5.0]])}, np.array([[1.0], [0.0]]))
    assert routing.token.tolist() == [0, 0, 0, 1, 1, 1]
    assert routing.expert.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(
        routing.weight, [1 / 8, 2 / 8, 5 / 8, 1 / 3, 1 / 3, 1 / 3], rtol=1e-12
    )
    assert routing.demand.all()


def test_it_is_top_k_with_k_equal_to_e():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 5))}
    x = rng.normal(size=(6, 4))
    dgate = rng.normal(size=(6, 5))
    for renormalise in (True, False):
        ours, cache = dense.route(params, x)
        other, other_cache = top_k.route(params, x, k=5, renormalise=renormalise)
        np.testing.assert_allclose(
            ours.weight.reshape(6, 5), numerics.softmax(x @ params["w"]), rtol=1e-12
        )
        dx, grads = dense.route_backward(dgate[ours.token, ours.expert], None, cache)
        dx0, grads0 = top_k.route_backward(dgate[other.token, other.expert], None, other_cache)
        np.testing.assert_allclose(dx, dx0, atol=1e-14)
        np.testing.assert_allclose(grads["w"], grads0["w"], atol=1e-14)


def test_one_expert_has_weight_1_and_no_gradient():
    routing, cache = dense.route({"w": np.ones((3, 1))}, np.ones((4, 3)))
    assert (routing.weight == 1).all()
    dx, grads = dense.route_backward(np.arange(4.0), None, cache)
    assert (dx == 0).all() and (grads["w"] == 0).all()


def test_start_has_the_stated_spread():
    w = dense.init(np.random.default_rng(0), 100, 200, scale=2.0)["w"]
    assert abs(w.std() - 0.2) < 0.005


def test_the_scale_of_the_initialisation_is_1_unless_given():
    first = dense.init(np.random.default_rng(0), 4, 3)["w"]
    np.testing.assert_array_equal(first, np.random.default_rng(0).normal(size=(4, 3)) / 2)
