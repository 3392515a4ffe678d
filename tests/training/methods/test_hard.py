"""Hard routing: both estimators of the gate's gradient, the baseline, and which experts learn."""

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.base.numerics import softmax
from moe_np.routing import gradient_estimators
from moe_np.training.methods import hard, method
from tests.support.training import first_steps, linear_problem


def forward_pass():
    """The generator, and the cache of a forward pass."""
    problem, rng = linear_problem(6), np.random.default_rng(7)
    _, cache = method.forward(problem, problem.init(rng))
    return rng, cache


def test_straight_through_is_the_gradient_of_the_expected_loss():
    rng, cache = forward_pass()
    _, dlogits = hard.gradients(cache, hard.draw_experts(cache, rng), 0.0, "straight_through")

    def expected_loss(p):
        return -(softmax(p["logits"]) * cache.log_f).sum() / 40

    errors = gradient_error(expected_loss, {"logits": cache.logits}, {"logits": dlogits}, rng)
    assert errors["logits"] < 1e-7


def test_reinforce_is_right_on_average_with_any_baseline():
    """The mean over all draws, each with its probability, is the gradient of the expected loss."""
    _, cache = forward_pass()
    routing = hard.draw_experts(cache, None)
    _, exact = hard.gradients(cache, routing, 0.0, "straight_through")
    mean = 0
    for i in range(3):  # cases are drawn independently: all cases to expert i, each with its p_i
        expert = np.full(40, i)
        demand = np.eye(3, dtype=bool)[expert]
        routing = routing._replace(expert=expert, demand=demand)
        _, dlogits = hard.gradients(cache, routing, 1.3, "reinforce")
        mean = mean + cache.p[:, [i]] * dlogits
    np.testing.assert_allclose(mean, exact, atol=1e-14)


def test_the_baseline_is_made_of_earlier_losses_only(monkeypatch):
    calls = []
    gradients = hard.gradients

    def watched(cache, routing, baseline, estimator):
        calls.append((-cache.log_f[routing.token, routing.expert], baseline))
        return gradients(cache, routing, baseline, estimator)

    monkeypatch.setattr(hard, "gradients", watched)
    first_steps(hard.train, linear_problem(6), 5)
    (loss_before, wanted), *later = calls
    assert np.array_equal(loss_before, wanted)
    for loss, baseline in later:
        wanted = 0.9 * wanted + 0.1 * loss_before
        np.testing.assert_allclose(baseline, wanted)
        loss_before = loss
    assert len(later) == 3


def test_experts_learn_from_their_own_cases_only():
    rng, cache = forward_pass()
    routing = hard.draw_experts(cache, rng)
    for estimator in gradient_estimators.ESTIMATORS:
        dlog_f, _ = hard.gradients(cache, routing, 0.0, estimator)
        assert np.array_equal(dlog_f != 0, routing.demand) and dlog_f.sum() == pytest.approx(-1)
