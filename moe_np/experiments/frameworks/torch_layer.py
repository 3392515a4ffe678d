"""The sparse layer as a module of PyTorch: a loop over experts, `index_add`, autograd."""

from typing import Any

from moe_np.experiments.frameworks import weights
from moe_np.experiments.frameworks.layer_problem import OUT, Problem, Step


def module(p: Problem) -> Any:
    """A `torch.nn.Module` with the parameters "router.w" and "experts.w1", "w3", "w2"."""
    import torch
    from torch.nn import functional as F

    class SparseLayer(torch.nn.Module):
        def __init__(self, shapes, k):
            super().__init__()
            for group, arrays in shapes.items():
                empty = {name: torch.empty(array.shape) for name, array in arrays.items()}
                setattr(self, group, torch.nn.ParameterDict(empty))
            self.k = k

        def forward(self, x):
            logits, chosen = (x @ self.router["w"]).topk(self.k, dim=1)
            weight = logits.softmax(dim=1)
            y = torch.zeros_like(x)
            nets = zip(*(self.experts[name].unbind() for name in ("w1", "w3", "w2")), strict=True)
            for m, (w1, w3, w2) in enumerate(nets):
                token, place = torch.where(chosen == m)
                rows = x[token]
                out = (F.silu(rows @ w1) * (rows @ w3)) @ w2
                y = y.index_add(0, token, weight[token, place, None] * out)
            return y

    layer = SparseLayer(p.params, p.k)
    layer.load_state_dict(weights.to_torch(p.params))
    return layer


def step_of(p: Problem) -> Step:
    """The step in PyTorch, on one thread."""
    import torch

    torch.set_num_threads(1)
    layer = module(p)
    dy = torch.tensor(p.dy)

    def step():
        layer.zero_grad()
        x = torch.tensor(p.x, requires_grad=True)
        y = layer(x)
        y.backward(dy)
        grads = {name: value.grad.numpy() for name, value in layer.named_parameters()}
        return {OUT: y.detach().numpy(), "x": x.grad.numpy(), **grads}

    return step
