"""Gates that weigh by a softmax, stated once more in PyTorch: dense, noisy top-k, Switch, GShard,
ST-MoE, hierarchical, k-means and top-p.
"""

import numpy as np
import pytest

from moe_np.layers import balance
from moe_np.routing import dense, gshard, hierarchical, kmeans, noisy_top_k, st_moe, switch, top_p
from tests.support.torch_gates import D, E, N, compare, masked_softmax, problem, top_mask, torch

pytestmark = pytest.mark.parity


def test_dense():
    a, t = problem(w=(D, E))
    routing, cache = dense.route({"w": a["w"]}, a["x"])
    logits = t["x"] @ t["w"]
    compare(
        dense,
        (routing, cache),
        torch.softmax(logits, dim=1),
        t,
        logits,
    )


@pytest.mark.parametrize("epsilon", [0.0, 1e-2])
def test_noisy_top_k_with_its_load(epsilon):
    a, t = problem(w=(D, E), w_noise=(D, E))
    k = 3
    params = {"w": a["w"], "w_noise": a["w_noise"]}
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
        noisy_top_k,
        (routing, cache),
        masked_softmax(noisy, mask),
        t,
        noisy,
        backward=lambda dw, dl: noisy_top_k.route_backward(dw, dl, cache, dload=dload),
        losses=[(load * torch.tensor(dload)).sum()],
    )


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
        switch,
        (routing, cache),
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
    compare(gshard, (routing, cache), gates * kept, t, logits)


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
        st_moe,
        (routing, cache),
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
    outer = t["x"] @ t["w_primary"]
    inner = (t["x"] @ t["w_secondary"]).reshape(N * 4, 2)

    def gate(logits, k):
        mask = top_mask(logits, k)
        return masked_softmax(logits, mask) if renormalise else torch.softmax(logits, dim=1) * mask

    weights = (
        gate(outer, k_primary)[:, :, None] * gate(inner, k_secondary).reshape(N, 4, 2)
    ).reshape(N, E)
    logits = (outer[:, :, None] + torch.log_softmax(inner, dim=1).reshape(N, 4, 2)).reshape(N, E)
    compare(hierarchical, (routing, cache), weights, t, logits)


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


def test_top_p_with_its_entropy_loss():
    a, t = problem(w=(D, E))
    logits = t["x"] @ t["w"]
    probs = torch.softmax(logits, dim=1)
    # an expert is kept if all that are strictly more probable do not yet reach p
    more_probable = (probs[:, None, :] * (probs[:, None, :] > probs[:, :, None])).sum(dim=2)
    routing, cache = top_p.route({"w": a["w"]}, a["x"], p=0.4)
    loss = balance.token_entropy(routing)
    entropy = torch.distributions.Categorical(probs=probs).entropy().mean()
    np.testing.assert_allclose(loss.value, entropy.item(), rtol=1e-10)
    (slope,) = torch.autograd.grad(entropy, logits, retain_graph=True)
    np.testing.assert_allclose(loss.dlogits, slope.numpy(), rtol=1e-9, atol=1e-14)
    compare(top_p, (routing, cache), probs * (more_probable < 0.4), t, logits)
