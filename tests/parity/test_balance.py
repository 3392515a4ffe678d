"""Load-balancing losses against the same equations in PyTorch, gradients by autograd (float64,
1e-10).
"""

import numpy as np
import pytest

from moe_np.layers import balance
from moe_np.routing import noisy_top_k, top_k

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")

N, E, K = 20, 6, 2
DEVICE, SEQUENCE = np.array([0, 0, 1, 2, 2, 2]), np.arange(N) // 7


def switch(z, choices):
    return E * (choices.mean(0) / K * z.softmax(1).mean(0)).sum()


def gshard(z, choices):
    first = torch.nn.functional.one_hot(z.argmax(1), E).double()
    return (first.mean(0) * z.softmax(1).mean(0)).mean()


def z_loss(z, choices):
    return z.logsumexp(1).square().mean()


def token_entropy(z, choices):
    return torch.distributions.Categorical(logits=z).entropy().mean()


def mean_entropy(z, choices):
    return torch.distributions.Categorical(probs=z.softmax(1).mean(0)).entropy()


def device_level(z, choices):
    f, P = E / K * choices.mean(0), z.softmax(1).mean(0)
    groups = [torch.tensor(np.flatnonzero(d == DEVICE)) for d in range(3)]
    return sum(f[g].mean() * P[g].sum() for g in groups)


def sequence_wise(z, choices):
    values = []
    for i in range(SEQUENCE.max() + 1):
        s = torch.sigmoid(z[np.flatnonzero(i == SEQUENCE)])
        f = E / K * torch.zeros_like(s).scatter(1, s.topk(K, dim=1).indices, 1.0).mean(0)
        values.append((f * (s / s.sum(1, keepdim=True)).mean(0)).sum())
    return sum(values) / len(values)


def transformers_style(z, choices):
    """Mixtral's load_balancing_loss_func: choices kept apart by rank, means over tokens, sum, times
    E.
    """
    ranks = torch.nn.functional.one_hot(z.softmax(1).topk(K, dim=1).indices, E).double()
    return E * (ranks.mean(0) * z.softmax(1).mean(0)[None]).sum()


PAIRS = {
    "switch": (balance.switch, switch),
    "expert_level": (balance.expert_level, switch),
    "switch not divided by k": (lambda r: balance.switch(r, divide_by_k=False), transformers_style),
    "gshard": (balance.gshard, gshard),
    "z_loss": (balance.z_loss, z_loss),
    "token_entropy": (balance.token_entropy, token_entropy),
    "mean_entropy": (balance.mean_entropy, mean_entropy),
    "device_level": (lambda r: balance.device_level(r, DEVICE), device_level),
    "sequence_wise": (lambda r: balance.sequence_wise(r, SEQUENCE, k=K), sequence_wise),
}


@pytest.mark.parametrize(("ours", "in_torch"), PAIRS.values(), ids=PAIRS.keys())
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients(ours, in_torch, seed):
    logits = 2 * np.random.default_rng(seed).normal(size=(N, E))
    routing = top_k.route({"w": np.eye(E)}, logits, k=K, renormalise=True)[0]
    z = torch.tensor(logits, requires_grad=True)
    wanted = in_torch(z, torch.tensor(routing.demand, dtype=torch.float64))
    wanted.backward()
    loss = ours(routing)
    assert loss.value == pytest.approx(wanted.item(), rel=1e-10)
    np.testing.assert_allclose(loss.dlogits, z.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_importance_through_the_noisy_gate():
    rng = np.random.default_rng(0)
    params, x = noisy_top_k.init(rng, 5, E, scale=1.0), rng.normal(size=(N, 5))
    routing, cache = noisy_top_k.route(params, x, k=K, rng=np.random.default_rng(1))
    loss = balance.importance(routing)
    _, grads = noisy_top_k.route_backward(loss.dweight, None, cache)

    p = {name: torch.tensor(a, requires_grad=True) for name, a in params.items()}
    t = torch.tensor(x)
    noisy = t @ p["w"] + torch.tensor(cache.noise) * torch.nn.functional.softplus(t @ p["w_noise"])
    kept = noisy.topk(K, dim=1)
    total = (
        torch.zeros(N, E, dtype=torch.float64)
        .scatter(1, kept.indices, kept.values.softmax(1))
        .sum(0)
    )
    wanted = total.var(correction=0) / total.mean() ** 2
    wanted.backward()
    assert loss.value == pytest.approx(wanted.item(), rel=1e-10)
    for name in p:
        np.testing.assert_allclose(grads[name], p[name].grad.numpy(), rtol=1e-9, atol=1e-13)
