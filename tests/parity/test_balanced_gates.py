"""Gates that balance by what they choose, stated once more in PyTorch: strictly balanced, expert
choice, BASE and bias-balanced.
"""

import numpy as np
import pytest
from scipy.optimize import linprog

from moe_np.routing import base_assignment, bias_balanced, expert_choice, strictly_balanced
from tests.support.torch_gates import D, E, N, compare, problem, top_mask, torch

pytestmark = pytest.mark.parity


def test_strictly_balanced_with_its_threshold_loss():
    a, t = problem(w=(D, E))
    threshold = np.random.default_rng(3).uniform(0, 0.3, E)
    t["threshold"] = torch.tensor(threshold, requires_grad=True)
    routing, cache = strictly_balanced.route(
        {"w": a["w"], "threshold": threshold}, a["x"], k=2, training=True
    )
    logits = t["x"] @ t["w"]
    probs = torch.softmax(logits, dim=1)
    mask = top_mask(probs.T, int(np.ceil(2 * N / E))).T
    kept = probs * mask
    total = kept.sum(dim=1, keepdim=True)
    weights = kept / torch.where(total > 0, total, torch.ones_like(total))
    loss = (((probs > t["threshold"]).double() - mask.double()) * (probs - t["threshold"])).sum()
    ours = strictly_balanced.threshold_loss(cache)
    np.testing.assert_allclose(ours.value, loss.item(), rtol=1e-10)

    def backward(dw, dl):
        dx, grads = strictly_balanced.route_backward(dw, dl + ours.dlogits, cache)
        return dx, {**grads, "threshold": grads["threshold"] + ours.dthreshold}

    result = routing, cache
    compare(strictly_balanced, result, weights, t, logits, backward=backward, losses=[loss])


def test_expert_choice():
    a, t = problem(w=(D, E))
    logits = t["x"] @ t["w"]
    S = torch.softmax(logits, dim=1)
    mask = top_mask(S, int(np.ceil(2 * N / E)), dim=0)
    compare(
        expert_choice,
        expert_choice.route({"w": a["w"]}, a["x"], capacity_factor=2.0),
        S * mask,
        t,
        logits,
    )


@pytest.mark.parametrize("balanced", [True, False])
def test_base_assignment(balanced):
    """The plan by linear programming: every expert has floor(N/E) to ceil(N/E) tokens."""
    a, t = problem(w=(D, E))
    logits = t["x"] @ t["w"]
    mask = top_mask(logits, 1)
    if balanced:
        load = np.kron(np.ones((1, N)), np.eye(E))
        solution = linprog(
            -logits.detach().numpy().ravel(),
            np.vstack([load, -load]),
            np.repeat([np.ceil(N / E), -(N // E)], E),
            np.kron(np.eye(N), np.ones((1, E))),
            np.ones(N),
            (0, 1),
        )
        mask = torch.tensor(solution.x.reshape(N, E) > 0.5)
    assert (mask.sum(dim=1) == 1).all()
    result = base_assignment.route({"w": a["w"]}, a["x"], training=balanced)
    compare(base_assignment, result, torch.sigmoid(logits) * mask, t, logits)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_bias_balanced(renormalise, groups):
    a, t = problem(w=(D, E), bias=(E,))
    logits = t["x"] @ t["w"]
    s = torch.sigmoid(logits)
    score = (s + 0.1 * t["bias"]).detach()
    if groups > 1:
        best = score.reshape(N, groups, -1).topk(2, dim=2).values.sum(dim=2)
        outside = ~top_mask(best, 2).repeat_interleave(E // groups, dim=1)
        score = score.masked_fill(outside, -torch.inf)
    kept = s * top_mask(score, 4)
    gate = 2.5 * (kept / kept.sum(dim=1, keepdim=True) if renormalise else kept)
    params = {"w": a["w"], "bias": 0.1 * a["bias"]}
    options = {
        "k": 4,
        "renormalise": renormalise,
        "routed_scale": 2.5,
        "n_group": groups,
        "topk_group": min(groups, 2),
    }
    compare(bias_balanced, bias_balanced.route(params, a["x"], **options), gate, t, logits)
