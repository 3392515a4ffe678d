"""REINFORCE and the straight-through estimator as they are usually stated in PyTorch."""

import numpy as np
import pytest

from moe_np.routing import gradient_estimators
from tests.support.torch_gates import D, E, N, compare, problem, torch

pytestmark = pytest.mark.parity


def test_straight_through_with_all_rows():
    """The usual statement: h + σ − σ.detach()."""
    a, t = problem(w=(D, E))
    logits = t["x"] @ t["w"]
    probs = torch.softmax(logits, dim=1)
    result = gradient_estimators.route(
        {"w": a["w"]},
        a["x"],
        estimator="straight_through",
        rows="all",
        rng=np.random.default_rng(3),
    )
    h = torch.tensor(result[0].demand.astype(float))
    compare(gradient_estimators, result, h + probs - probs.detach(), t, logits)


def test_reinforce():
    """The usual statement: log probability of the draw times the advantage."""
    a, t = problem(w=(D, E))
    routing, cache = gradient_estimators.route(
        {"w": a["w"]}, a["x"], estimator="reinforce", rng=np.random.default_rng(3)
    )
    loss = np.random.default_rng(4).normal(size=N)
    draw = torch.distributions.Categorical(logits=t["x"] @ t["w"])
    (draw.log_prob(torch.tensor(routing.expert)) * torch.tensor(loss - 0.2)).sum().backward()
    dx, grads = gradient_estimators.route_backward(
        np.ones(N), gradient_estimators.reinforce(routing, loss, 0.2), cache
    )
    np.testing.assert_allclose(dx, t["x"].grad.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(grads["w"], t["w"].grad.numpy(), rtol=1e-10, atol=1e-12)
