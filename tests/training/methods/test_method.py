"""The likelihood of a mixture and its gradient, as all training methods use them."""

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.base.numerics import log_softmax, softmax
from moe_np.training.methods import method
from tests.support.training import linear_problem, logistic_problem


@pytest.mark.parametrize("make", [linear_problem, logistic_problem])
def test_gradient_of_the_likelihood(make):
    problem = make(1)
    params = problem.init(np.random.default_rng(2))
    _, cache = method.forward(problem, params)
    grads = method.backward(problem, cache)
    for part in method.PARTS:

        def loss(arrays, part=part):
            return method.loss_of(problem, {**params, part: arrays})

        errors = gradient_error(loss, params[part], grads[part], np.random.default_rng(3))
        assert max(errors.values()) < 1e-7, errors
        of_part = method.backward(problem, cache, (part,))
        assert list(of_part) == [part]
        assert all(np.array_equal(of_part[part][k], grads[part][k]) for k in grads[part])


def test_a_forward_pass_of_one_part_is_that_of_the_whole():
    problem, rng = linear_problem(1), np.random.default_rng(2)
    params = problem.init(rng)
    _, cache = method.forward(problem, params)
    for part in method.PARTS:
        updated = {**params, part: problem.init(rng)[part]}
        loss, part_cache = method.forward_part(problem, updated, cache, part)
        wanted, wanted_cache = method.forward(problem, updated)
        assert loss == wanted and np.array_equal(part_cache.resp, wanted_cache.resp)


def test_gradient_of_the_gate_towards_a_target():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 4))
    target = rng.random((7, 4))  # rows that do not sum to 1 as well

    def loss(p):
        return -(target * log_softmax(p["logits"])).sum() / 7

    grad = method.cross_entropy_backward(softmax(logits), target)
    errors = gradient_error(loss, {"logits": logits}, {"logits": grad}, rng)
    assert errors["logits"] < 1e-7


def test_a_step_of_adam_leaves_parts_without_gradients_alone():
    params = linear_problem().init(np.random.default_rng(0))
    grads = {"gate": {name: np.ones_like(a) for name, a in params["gate"].items()}}
    new, states = method.adam_step(params, grads, {}, 0.1)
    assert new["experts"] is params["experts"] and list(states) == ["gate"]
    np.testing.assert_allclose(new["gate"]["U"], params["gate"]["U"] - 0.1)
