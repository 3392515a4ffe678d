"""Trees of experts against PyTorch: its distributions for the likelihood, its autograd for the
gradient.
"""

import numpy as np
import pytest

from moe_np.mixtures import hme
from tests.support.mixtures import TREES, each_covariance, random_tree

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def log_prob(params, x, y, node=0, level=1):
    """log P(y | x) below a node, (N,): a MixtureSameFamily written as a recursion, expert by
    expert.
    """
    if f"U{level}" in params:
        branches = params[f"c{level}"].shape[1]
        logits = x @ params[f"U{level}"][:, node] + params[f"c{level}"][node]
        below = [log_prob(params, x, y, node * branches + k, level + 1) for k in range(branches)]
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
@each_covariance
def test_likelihood_and_gradient_are_those_of_torch(tree, covariance):
    params, x, y = random_tree(tree, covariance, seed=5)
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    inputs = torch.tensor(x, requires_grad=True)
    torch_loss = -log_prob(tensors, inputs, torch.tensor(y))
    weight = np.random.default_rng(0).normal(size=len(x))
    (torch_loss * torch.tensor(weight)).sum().backward()
    loss, cache = hme.forward(params, x, y)
    dx, grads = hme.backward(weight, cache)
    np.testing.assert_allclose(loss, torch_loss.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(dx, inputs.grad.numpy(), rtol=1e-8, atol=1e-10)
    close = {"rtol": 1e-8, "atol": 1e-10}
    for name, tensor in tensors.items():
        np.testing.assert_allclose(grads[name], tensor.grad.numpy(), err_msg=name, **close)
