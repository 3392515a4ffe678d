"""Trees of experts against PyTorch: its distributions for the likelihood, its autograd for the
gradient.
"""

import numpy as np
import pytest

from moe_np.mixtures import hme
from tests.mixtures.test_hme import FAMILIES, TREES, problem

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def log_prob(params, x, y, node=0, level=1):
    """log P(y | x) below a node, (N,): a MixtureSameFamily written as a recursion, expert by
    expert.
    """
    if f"U{level}" in params:
        b = params[f"c{level}"].shape[1]
        logits = x @ params[f"U{level}"][:, node] + params[f"c{level}"][node]
        below = [log_prob(params, x, y, node * b + k, level + 1) for k in range(b)]
        return torch.logsumexp(torch.log_softmax(logits, 1) + torch.stack(below, 1), 1)
    mu = x @ params["W"][node] + params["b"][node]
    if "var" not in params:
        return torch.distributions.Categorical(logits=mu).log_prob(y)
    var = params["var"] if params["var"].ndim == 0 else params["var"][node]
    if var.ndim == 2:
        symmetric = 0.5 * (var + var.T)  # as autograd sees it: both halves move
        return torch.distributions.MultivariateNormal(mu, covariance_matrix=symmetric).log_prob(y)
    return torch.distributions.Normal(mu, var.sqrt()).log_prob(y).sum(1)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("like", FAMILIES)
def test_likelihood_and_gradient_are_those_of_torch(tree, like):
    params, x, y = problem(tree, like, seed=5)
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    inputs = torch.tensor(x, requires_grad=True)
    loss = -log_prob(theirs, inputs, torch.tensor(y))
    weight = np.random.default_rng(0).normal(size=len(x))
    (loss * torch.tensor(weight)).sum().backward()
    ours, cache = hme.forward(params, x, y)
    dx, grads = hme.backward(weight, cache)
    np.testing.assert_allclose(ours, loss.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(dx, inputs.grad.numpy(), rtol=1e-8, atol=1e-10)
    for name, tensor in theirs.items():
        np.testing.assert_allclose(
            grads[name], tensor.grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=name
        )
