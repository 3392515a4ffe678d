"""Top-k gating with a bias: equal to top-k without it, and closed where the bias says so."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.routing import biased_top_k, top_k
from tests.support.routers import Case

CASES = {
    "biased_top_k": Case(biased_top_k, {"k": 2, "renormalise": False}, fewest=2),
    "biased_top_k renormalised": Case(biased_top_k, {"k": 2, "renormalise": True}, fewest=2),
}


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    return {"w": rng.normal(size=(5, 6)), "bias": rng.normal(size=6)}, rng.normal(size=(9, 5))


@pytest.mark.parametrize("renormalise", [False, True])
def test_the_logits_are_x_w_plus_the_bias(problem, renormalise):
    params, x = problem
    routing, _ = biased_top_k.route(params, x, k=2, renormalise=renormalise)
    np.testing.assert_allclose(routing.logits, x @ params["w"] + params["bias"], rtol=1e-12)
    without = {**params, "bias": np.zeros(6)}
    ours, _ = biased_top_k.route(without, x, k=2, renormalise=renormalise)
    plain, _ = top_k.route({"w": params["w"]}, x, k=2, renormalise=renormalise)
    np.testing.assert_array_equal(ours.expert, plain.expert)
    np.testing.assert_allclose(ours.weight, plain.weight, rtol=1e-12)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_closed_expert_is_as_good_as_absent(problem, renormalise, dtype):
    params, x = ({name: p.astype(dtype) for name, p in problem[0].items()}, problem[1])
    x = 10 * x.astype(dtype)
    closed = {**params, "bias": np.where(np.arange(6) == 2, biased_top_k.CLOSED, params["bias"])}
    closed["bias"] = closed["bias"].astype(dtype)
    absent = {name: np.delete(p, 2, axis=-1) for name, p in params.items()}
    options = {"k": 2, "renormalise": renormalise}
    routing, cache = biased_top_k.route(closed, x, **options)
    other, _ = biased_top_k.route(absent, x, **options)
    assert (routing.probs[:, 2] == 0).all() and not routing.demand[:, 2].any()
    np.testing.assert_array_equal(routing.expert, other.expert + (other.expert >= 2))
    np.testing.assert_allclose(
        routing.weight, other.weight, rtol=1e-5 if dtype is np.float32 else 1e-12
    )
    dweight = np.random.default_rng(0).normal(size=routing.weight.shape).astype(dtype)
    _, grads = biased_top_k.route_backward(dweight, None, cache)
    assert (grads["w"][:, 2] == 0).all() and grads["bias"][2] == 0
    assert (np.abs(np.delete(grads["w"], 2, axis=1)).sum(axis=0) > 0).sum() >= 2


def test_more_choices_than_open_experts_are_refused(problem):
    params, x = problem
    params = {**params, "bias": np.where(np.arange(6) > 1, biased_top_k.CLOSED, 0.0)}
    biased_top_k.route(params, x, k=2, renormalise=True)
    with pytest.raises(InputError, match="at most the 2 experts whose gate is open, got 3"):
        biased_top_k.route(params, x, k=3, renormalise=True)
