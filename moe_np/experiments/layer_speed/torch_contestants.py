"""Contestants of the bench in PyTorch: the usual loop over experts, Transformers' Mixtral block.

The loop is written for this package, and the parity tests hold our layer against it too. PyTorch is
imported when a contestant is prepared.
"""

import numpy as np

from moe_np.base.machine import cores
from moe_np.experiments.layer_speed.problem import Problem, Step, least_time

IMPLEMENTATIONS = ("eager", "grouped_mm")  # of Transformers' experts: the two that are fast here


def _leaves(p):
    import torch

    torch.set_num_threads(cores())
    arrays = {"x": p.x, "router": p.router["w"], **p.params}
    leaves = {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    return leaves, torch.tensor(p.dout)


def _step(leaves, dout, compute):
    import torch

    def step(backward):
        if not backward:
            with torch.no_grad():
                return compute().numpy()
        for leaf in leaves.values():
            leaf.grad = None
        out = compute()
        out.backward(dout)
        grads = {name: leaf.grad.numpy() for name, leaf in leaves.items()}
        return out.detach().numpy(), grads.pop("x"), grads

    return step


def torch_loop(p: Problem) -> Step:
    """The loop over experts with `index_add`, differentiated by autograd."""
    import torch
    from torch.nn import functional as F

    t, dout = _leaves(p)

    def compute():
        weight, chosen = (t["x"] @ t["router"]).topk(p.shape.k, dim=1)
        weight = weight.softmax(dim=1)
        out = torch.zeros_like(t["x"])
        # unbound once, because a gradient of t["w1"][m] is as large as all of t["w1"]
        w = {name: t[name].unbind() for name in p.params}
        for m in range(p.shape.experts):
            token, j = torch.where(chosen == m)
            rows = t["x"][token]
            if p.kind == "swiglu":
                h = F.silu(rows @ w["w1"][m]) * (rows @ w["w3"][m])
                y = h @ w["w2"][m]
            else:
                y = F.relu(rows @ w["w1"][m] + w["b1"][m]) @ w["w2"][m] + w["b2"][m]
            out = out.index_add(0, token, weight[token, j, None] * y)
        return out

    return _step(t, dout, compute)


def mixtral_block(p: Problem, implementation: str) -> object:
    """Transformers' Mixtral block with our weights in it."""
    import torch
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=p.shape.d,
        intermediate_size=p.shape.hidden,
        num_local_experts=p.shape.experts,
        num_experts_per_tok=p.shape.k,
    )
    config._experts_implementation = implementation
    block = MixtralSparseMoeBlock(config).to(torch.tensor(p.x).dtype)
    stacked = np.concatenate([p.params["w1"], p.params["w3"]], axis=2).transpose(0, 2, 1)
    with torch.no_grad():
        block.gate.weight.copy_(torch.tensor(p.router["w"].T.copy()))
        block.experts.gate_up_proj.copy_(torch.tensor(stacked.copy()))
        block.experts.down_proj.copy_(torch.tensor(p.params["w2"].transpose(0, 2, 1).copy()))
    return block


def transformers_mixtral(p: Problem, implementation: str | None = None) -> Step:
    """Transformers' block by one of its implementations; None: by the fastest, chosen for forward
    and for forward with backward.
    """
    import torch

    if implementation is None:
        steps = [transformers_mixtral(p, name) for name in IMPLEMENTATIONS]
        forward = min(steps, key=lambda step: least_time(step, False, at_least=0.1))
        training = min(steps, key=lambda step: least_time(step, True, at_least=0.1))
        return lambda backward: (training if backward else forward)(backward)
    torch.set_num_threads(cores())
    block = mixtral_block(p, implementation)
    x = torch.tensor(p.x, requires_grad=True)
    leaves = {"x": x, **dict(block.named_parameters())}
    step = _step(leaves, torch.tensor(p.dout), lambda: block(x[None])[0])

    def step_with_our_names(backward):
        if not backward:
            return step(False)
        out, dx, g = step(True)
        w1_w3 = g["experts.gate_up_proj"].transpose(0, 2, 1)
        grads = {
            "router": g["gate.weight"].T,
            "w1": w1_w3[..., : p.shape.hidden],
            "w3": w1_w3[..., p.shape.hidden :],
            "w2": g["experts.down_proj"].transpose(0, 2, 1),
        }
        return out, dx, grads

    return step_with_our_names
