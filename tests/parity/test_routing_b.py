"""Expert choice, k-means, BASE, top-p, bias-balanced, estimators and the soft mixture stated once
more in PyTorch.

Each statement is a dense (N, E) matrix of weights, made with masks instead of rows, and autograd
differentiates it.
"""

import numpy as np
import pytest
from scipy.optimize import linprog

from moe_np.layers import balance, experts, soft_moe
from moe_np.routing import (
    base_assignment,
    bias_balanced,
    expert_choice,
    gradient_estimators,
    kmeans,
    top_p,
)

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

N, D, E = 30, 6, 8


def problem(**shapes):
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in {"x": (N, D), **shapes}.items()}
    return arrays, {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}


def compare(router, result, weights, tensors, logits):
    """Rows against the matrix, then every gradient of a random sum of weights and logits."""
    routing, cache = result
    gate = np.zeros((N, E))
    gate[routing.token, routing.expert] = routing.weight
    np.testing.assert_allclose(gate, weights.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(routing.logits, logits.detach().numpy(), rtol=1e-10, atol=1e-12)
    rng = np.random.default_rng(1)
    dgate, dlogits = rng.normal(size=(N, E)), rng.normal(size=(N, E))
    ((weights * torch.tensor(dgate)).sum() + (logits * torch.tensor(dlogits)).sum()).backward()
    dx, grads = router.route_backward(dgate[routing.token, routing.expert], dlogits, cache)
    for name, g in {**grads, "x": dx}.items():
        wanted = 0 if tensors[name].grad is None else tensors[name].grad.numpy()
        np.testing.assert_allclose(g, wanted, rtol=1e-10, atol=1e-10, err_msg=name)


def top_mask(score, k, dim=1):
    return torch.zeros_like(score).scatter(dim, score.topk(k, dim=dim).indices, 1.0).bool()


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


@pytest.mark.parametrize(("weights", "k"), [("softmax", 3), ("renormalised", 3), ("one", 2)])
def test_kmeans(weights, k):
    a, t = problem(centroids=(E, D))
    logits = -((t["x"][:, None] - t["centroids"]) ** 2).sum(dim=2) / 2.5
    mask = top_mask(logits, k)
    gate = {
        "softmax": torch.softmax(logits, dim=1) * mask,
        "renormalised": torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=1),
        "one": mask.double(),
    }[weights]
    options = {"k": k, "weights": weights, "temperature": 2.5}
    if weights == "renormalised":
        options |= {"weights": "softmax", "renormalise": True}
    compare(kmeans, kmeans.route({"centroids": a["centroids"]}, a["x"], **options), gate, t, logits)


@pytest.mark.parametrize("balanced", [True, False])
def test_base_assignment(balanced):
    """The plan by linear programming instead: every expert between floor(N/E) and ceil(N/E) tokens."""
    a, t = problem(w=(D, E))
    logits = t["x"] @ t["w"]
    mask = top_mask(logits, 1)
    if balanced:
        load = np.kron(np.ones((1, N)), np.eye(E))
        found = linprog(
            -logits.detach().numpy().ravel(),
            np.vstack([load, -load]),
            np.repeat([np.ceil(N / E), -(N // E)], E),
            np.kron(np.eye(N), np.ones((1, E))),
            np.ones(N),
            (0, 1),
        )
        mask = torch.tensor(found.x.reshape(N, E) > 0.5)
    assert (mask.sum(dim=1) == 1).all()
    result = base_assignment.route({"w": a["w"]}, a["x"], training=balanced)
    compare(base_assignment, result, torch.sigmoid(logits) * mask, t, logits)


def test_top_p_with_its_entropy_loss():
    a, t = problem(w=(D, E))
    logits = t["x"] @ t["w"]
    probs = torch.softmax(logits, dim=1)
    # an expert is kept if all that are strictly more probable do not yet reach p
    better = (probs[:, None, :] * (probs[:, None, :] > probs[:, :, None])).sum(dim=2)
    routing, cache = top_p.route({"w": a["w"]}, a["x"], p=0.4)
    loss = balance.token_entropy(routing)
    entropy = torch.distributions.Categorical(probs=probs).entropy().mean()
    np.testing.assert_allclose(loss.value, entropy.item(), rtol=1e-10)
    (slope,) = torch.autograd.grad(entropy, logits, retain_graph=True)
    np.testing.assert_allclose(loss.dlogits, slope.numpy(), rtol=1e-9, atol=1e-14)
    compare(top_p, (routing, cache), probs * (better < 0.4), t, logits)


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


@pytest.mark.parametrize("normalise", [True, False])
def test_soft_moe(normalise):
    shapes = {"phi": (D, 4, 3), "w": (4, D, 5), "b": (4, 5), **({"scale": ()} if normalise else {})}
    a, t = problem(**shapes)
    a["x"], t["x"] = (m.reshape(3, 10, D) for m in (a["x"], t["x"].detach()))
    t["x"].requires_grad_()
    unit, phi = t["x"], t["phi"].reshape(D, 12)
    if normalise:
        unit = unit * torch.rsqrt((unit**2).sum(dim=2, keepdim=True) + 1e-6)
        phi = t["scale"] * phi * torch.rsqrt((phi**2).sum(dim=0, keepdim=True) + 1e-6)
    logits = torch.einsum("bnd,ds->bns", unit, phi)
    slots = torch.einsum("bns,bnd->bsd", torch.softmax(logits, dim=1), t["x"]).reshape(3, 4, 3, D)
    out = torch.einsum("besd,edf->besf", slots, t["w"]) + t["b"][:, None]
    y = torch.einsum("bns,bsf->bnf", torch.softmax(logits, dim=2), out.reshape(3, 12, 5))
    params = {k: np.asarray(a[k]) for k in ("phi", "scale") if k in a}
    ours, cache = soft_moe.forward(
        params, {"w": a["w"], "b": a["b"]}, a["x"], experts.LINEAR
    )
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-10, atol=1e-12)
    dy = np.random.default_rng(1).normal(size=ours.shape)
    (y * torch.tensor(dy)).sum().backward()
    dx, grads, own = soft_moe.backward(dy, cache)
    for name, g in {**grads, **own, "x": dx}.items():
        np.testing.assert_allclose(g, t[name].grad.numpy(), rtol=1e-10, atol=1e-10, err_msg=name)
