"""A router stated once more in PyTorch: a dense (N, E) matrix of weights, made with masks instead
of rows, which autograd differentiates.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

N, D, E = 30, 6, 8


def problem(**shapes):
    """Arrays and, with their values, tensors, of these shapes and of x (N, D)."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in {"x": (N, D), **shapes}.items()}
    return arrays, {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}


def compare(router, result, weights, tensors, logits, *, backward=None, losses=()):
    """Rows against the matrix, then every gradient of a random sum of weights, logits and further
    losses. `backward` stands in for route_backward: (dweight, dlogits) -> dx, grads.
    """
    routing, cache = result
    gate = np.zeros((N, E))
    gate[routing.token, routing.expert] = routing.weight
    np.testing.assert_allclose(gate, weights.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(routing.logits, logits.detach().numpy(), rtol=1e-10, atol=1e-12)
    rng = np.random.default_rng(1)
    dgate = rng.normal(size=(N, E))
    dlogits = rng.normal(size=(N, E))
    total = (weights * torch.tensor(dgate)).sum() + (logits * torch.tensor(dlogits)).sum()
    (total + sum(losses)).backward()
    dweight = dgate[routing.token, routing.expert]
    if backward is None:
        dx, grads = router.route_backward(dweight, dlogits, cache)
    else:
        dx, grads = backward(dweight, dlogits)
    for name, g in {**grads, "x": dx}.items():
        wanted = 0 if tensors[name].grad is None else tensors[name].grad.numpy()
        np.testing.assert_allclose(g, wanted, rtol=1e-10, atol=1e-10, err_msg=name)


def top_mask(score, k, dim=1):
    return torch.zeros_like(score).scatter(dim, score.topk(k, dim=dim).indices, 1.0).bool()


def masked_softmax(logits, mask):
    return torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=1)
