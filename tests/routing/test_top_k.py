"""The top-k softmax gate, renormalised and not."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import top_k
from tests.support.routers import Case

CASES = {
    "top_k renormalised": Case(top_k, {"k": 2, "renormalise": True}, fewest=2),
    "top_k": Case(top_k, {"k": 2, "renormalise": False}, fewest=2),
    "top_k k=1": Case(top_k, {"k": 1, "renormalise": False}),
}


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    return {"w": rng.normal(size=(5, 6))}, rng.normal(size=(9, 5))


def test_errata_03_renormalised_top_k_is_a_softmax_of_the_kept_logits(problem):
    params, x = problem
    (routing, cache) = top_k.route(params, x, k=2, renormalise=True)
    k = 2
    p = np.sort(numerics.softmax(x @ params["w"]), axis=1)[:, ::-1][:, :k]
    np.testing.assert_allclose(
        routing.weight.reshape(-1, k), p / p.sum(axis=1, keepdims=True), rtol=1e-12
    )
    # the unselected logits get exactly nothing: column m of w only hears from tokens that chose m
    dweight = np.random.default_rng(0).normal(size=routing.weight.shape)
    alone = np.zeros_like(x)
    alone[4] = x[4]
    _, grads = top_k.route_backward(np.where(routing.token == 4, dweight, 0), None, cache)
    unselected = np.setdiff1d(np.arange(6), routing.expert[routing.token == 4])
    assert (grads["w"][:, unselected] == 0).all() and (
        grads["w"][:, routing.expert[routing.token == 4]] != 0
    ).all()


def test_errata_03_not_renormalised_every_logit_gets_a_gradient(problem):
    params, x = problem
    routing, cache = top_k.route(params, x, k=2, renormalise=False)
    _, grads = top_k.route_backward(np.where(routing.token == 4, 1.0, 0.0), None, cache)
    assert (grads["w"] != 0).all()


def test_errata_04_k_1_renormalised_is_refused_with_the_reason(problem):
    params, x = problem
    with pytest.raises(InputError, match="the task's gradient of the router is 0"):
        top_k.route(params, x, k=1, renormalise=True)


def test_k_equal_to_e_is_the_dense_mixture(problem):
    params, x = problem
    for renormalise in (True, False):
        routing, _ = top_k.route(params, x, k=6, renormalise=renormalise)
        dense = np.zeros((9, 6))
        dense[routing.token, routing.expert] = routing.weight
        np.testing.assert_allclose(dense, numerics.softmax(x @ params["w"]), rtol=1e-12)


@pytest.mark.parametrize("renormalise", [True, False])
def test_a_gradient_of_another_type_is_taken_in_that_of_the_tokens(problem, renormalise, backend):
    """The compiled loops compute in it; NumPy may take more digits on the way."""
    params, x = {"w": problem[0]["w"].astype(np.float32)}, problem[1].astype(np.float32)
    routing, cache = top_k.route(params, x, k=2, renormalise=renormalise)
    dweight = np.random.default_rng(0).normal(size=routing.weight.shape).astype(np.float32)
    dx, grads = top_k.route_backward(dweight, None, cache)
    same_dx, same_grads = top_k.route_backward(dweight.astype(np.float64), None, cache)
    assert same_dx.dtype == same_grads["w"].dtype == np.float32
    atol = 0 if backend == "numba" else 1e-6
    np.testing.assert_allclose(same_dx, dx, rtol=0, atol=atol)
    np.testing.assert_allclose(same_grads["w"], grads["w"], rtol=0, atol=atol)


def test_renormalise_has_no_default(problem):
    with pytest.raises(TypeError, match="renormalise"):
        top_k.route(*problem, k=2)


def test_the_initialisation_is_normal_with_deviation_scale_over_the_root_of_d():
    drawn = np.random.default_rng(0).normal(size=(4, 3))
    first = top_k.init(np.random.default_rng(0), 4, 3)["w"]
    np.testing.assert_array_equal(first, drawn / 2)
    scaled = top_k.init(np.random.default_rng(0), 4, 3, scale=3.0)["w"]
    np.testing.assert_allclose(scaled, drawn * 1.5, rtol=1e-14)
