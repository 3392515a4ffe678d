"""Dense, noisy top-k, strictly balanced, Switch, GShard, ST-MoE and hierarchical gates stated once
more in PyTorch.

Each statement is a dense (N, E) matrix of weights, made with masks instead of rows, and autograd
differentiates it.
"""

import numpy as np
import pytest

from moe_np.routing import (
    dense,
    gshard,
    hierarchical,
    noisy_top_k,
    st_moe,
    strictly_balanced,
    switch,
)

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

N, D, E = 30, 6, 8


def problem(**shapes):
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in {"x": (N, D), **shapes}.items()}
    return arrays, {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}


def compare(result, weights, tensors, logits, **losses):
    """Rows against the matrix, then every gradient of a random sum of weights, logits and further
    losses.
    """
    routing, backward = result
    gate = np.zeros((N, E))
    gate[routing.token, routing.expert] = routing.weight
    np.testing.assert_allclose(gate, weights.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(routing.logits, logits.detach().numpy(), rtol=1e-10, atol=1e-12)
    rng = np.random.default_rng(1)
    dgate, dlogits = rng.normal(size=(N, E)), rng.normal(size=(N, E))
    total = (weights * torch.tensor(dgate)).sum() + (logits * torch.tensor(dlogits)).sum()
    for loss in losses.values():
        total = total + loss
    total.backward()
    dx, grads = backward(dgate[routing.token, routing.expert], dlogits)
    for name, g in {**grads, "x": dx}.items():
        np.testing.assert_allclose(
            g, tensors[name].grad.numpy(), rtol=1e-10, atol=1e-10, err_msg=name
        )


def top_mask(score, k):
    return torch.zeros_like(score).scatter(1, score.topk(k, dim=1).indices, 1.0).bool()


def masked_softmax(logits, mask):
    return torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=1)


def test_dense():
    a, t = problem(w=(D, E))
    routing, cache = dense.route({"w": a["w"]}, a["x"])
    logits = t["x"] @ t["w"]
    compare(
        (routing, lambda dw, dl: dense.route_backward(dw, dl, cache)),
        torch.softmax(logits, dim=1),
        t,
        logits,
    )


@pytest.mark.parametrize("epsilon", [0.0, 1e-2])
def test_noisy_top_k_with_its_load(epsilon):
    a, t = problem(w=(D, E), w_noise=(D, E))
    k, params = 3, {"w": a["w"], "w_noise": a["w_noise"]}
    routing, cache = noisy_top_k.route(
        params, a["x"], k=k, noise_epsilon=epsilon, rng=np.random.default_rng(5)
    )
    noise = torch.tensor(np.random.default_rng(5).normal(size=(N, E)))
    clean = t["x"] @ t["w"]
    sigma = torch.nn.functional.softplus(t["x"] @ t["w_noise"]) + epsilon
    noisy = clean + noise * sigma
    mask = top_mask(noisy, k)
    # the k-th largest once expert i is struck out, written out for every i
    struck = noisy[:, None, :].masked_fill(torch.eye(E, dtype=torch.bool), -torch.inf)
    kth = struck.topk(k, dim=2).values[:, :, -1]
    load = torch.distributions.Normal(0.0, 1.0).cdf((clean - kth) / sigma).sum(dim=0)
    ours, _ = noisy_top_k.load_forward(cache)
    np.testing.assert_allclose(ours, load.detach().numpy(), rtol=1e-10)
    dload = np.random.default_rng(6).normal(size=E)
    compare(
        (routing, lambda dw, dl: noisy_top_k.route_backward(dw, dl, cache, dload=dload)),
        masked_softmax(noisy, mask),
        t,
        noisy,
        load=(load * torch.tensor(dload)).sum(),
    )


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

    compare((routing, backward), weights, t, logits, loss=loss)


def in_order(mask, C):
    """The first C of each column of a bool matrix, by running counts."""
    return mask & (mask.long().cumsum(dim=0) <= C)


def test_switch_with_jitter_and_capacity():
    a, t = problem(w=(D, E))
    routing, cache = switch.route(
        {"w": a["w"]}, a["x"], capacity_factor=1.0, jitter=0.1, rng=np.random.default_rng(5)
    )
    jitter = torch.tensor(np.random.default_rng(5).uniform(0.9, 1.1, size=(N, D)))
    logits = (t["x"] * jitter) @ t["w"]
    placed = in_order(top_mask(logits, 1), int(np.ceil(N / E)))
    assert 0 < placed.sum() < N
    compare(
        (routing, lambda dw, dl: switch.route_backward(dw, dl, cache)),
        torch.softmax(logits, dim=1) * placed,
        t,
        logits,
    )


def two_gates(logits):
    """The masks of first and second choice, and both gates as one (N, E) matrix."""
    first = top_mask(logits, 1)
    both = top_mask(logits, 2)
    return first, both & ~first, masked_softmax(logits, both)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_gshard(variant):
    a, t = problem(w=(D, E))
    options = {"capacity_factor": 0.7, "variant": variant}
    routing, cache = gshard.route({"w": a["w"]}, a["x"], **options, rng=np.random.default_rng(5))
    logits = t["x"] @ t["w"]
    first, second, gates = two_gates(logits)
    sent = second & (2 * gates > torch.tensor(np.random.default_rng(5).random(N))[:, None])
    C = int(np.ceil(0.7 * 2 * N / E))
    queue = torch.cat([first, sent if variant == "code" else second])
    placed = in_order(queue, C)
    kept = placed[:N] | (placed[N:] & sent)
    assert kept.sum() < (first | sent).sum()
    compare((routing, lambda dw, dl: gshard.route_backward(dw, dl, cache)), gates * kept, t, logits)


@pytest.mark.parametrize("of", ["first", "pair"])
def test_st_moe(of):
    a, t = problem(w=(D, E))
    options = {"threshold": 0.3, "of": of, "capacity_factor": 0.7}
    routing, cache = st_moe.route({"w": a["w"]}, a["x"], **options)
    logits = t["x"] @ t["w"]
    first, second, gates = two_gates(logits)
    probs = torch.softmax(logits, dim=1)
    share = probs / probs.max(dim=1, keepdim=True).values if of == "first" else gates
    sent = second & (share > 0.3)
    assert 0 < sent.sum() < N
    placed = in_order(torch.cat([first, sent]), int(np.ceil(0.7 * 2 * N / E)))
    compare(
        (routing, lambda dw, dl: st_moe.route_backward(dw, dl, cache)),
        gates * (placed[:N] | placed[N:]),
        t,
        logits,
    )


@pytest.mark.parametrize(
    ("k_primary", "k_secondary", "renormalise"), [(2, 2, True), (1, 2, False), (4, 2, True)]
)
def test_hierarchical(k_primary, k_secondary, renormalise):
    a, t = problem(w_primary=(D, 4), w_secondary=(D, E))
    params = {name: a[name] for name in ("w_primary", "w_secondary")}
    options = {"k_primary": k_primary, "k_secondary": k_secondary, "renormalise": renormalise}
    routing, cache = hierarchical.route(params, a["x"], **options)
    outer, inner = t["x"] @ t["w_primary"], (t["x"] @ t["w_secondary"]).reshape(N * 4, 2)

    def gate(logits, k):
        mask = top_mask(logits, k)
        return masked_softmax(logits, mask) if renormalise else torch.softmax(logits, dim=1) * mask

    weights = (
        gate(outer, k_primary)[:, :, None] * gate(inner, k_secondary).reshape(N, 4, 2)
    ).reshape(N, E)
    logits = (outer[:, :, None] + torch.log_softmax(inner, dim=1).reshape(N, 4, 2)).reshape(N, E)
    compare(
        (routing, lambda dw, dl: hierarchical.route_backward(dw, dl, cache)), weights, t, logits
    )
