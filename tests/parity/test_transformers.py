"""Whole blocks of Transformers and the same here, with their weights: outputs and gradients, in
float32, to 1e-5.

DeepSeek-V3   bias_balanced with groups, SwiGLU experts, and shared experts that every token passes
Switch        switch with capacity, ReLU experts whose biases are 0. Two things differ. In
              Transformers the capacity is a number of tokens in the configuration, and every
              sequence of a batch has its own places; here `capacity_factor` makes the number from
              the tokens, so each sequence is routed by itself. In Transformers padding takes places
              like any token (the option that should prevent it is never read); here `valid` leaves
              it out. A dropped token is 0 in both; in older versions (4.50) it is p·x, as in
              errata 8
Mixtral       in parity/test_layer.py

Tokens are random, so there are no ties. Blocks are made from small configurations; no weights are
downloaded.
"""

import importlib

import numpy as np
import pytest

from moe_np.layers import balance, experts, shared_experts, sparse_layer
from moe_np.routing import bias_balanced, switch, top_k

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", "4.57")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("backend")]

B, L, D, H, E = 3, 16, 12, 20, 8
N = B * L


def classes(module, *names):
    """The classes of a model file; skips the test if this version of Transformers lacks one."""
    model = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    missing = [name for name in names if not hasattr(model, name)]
    if missing:
        pytest.skip(f"this version of Transformers has no {', '.join(missing)}")
    return [getattr(model, name) for name in names]


def filled(block, seed=0):
    """The block with normal weights of deviation 1/√fan_in, in training mode."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in block.parameters():
            p.copy_(torch.tensor(rng.normal(size=p.shape) / np.sqrt(p.shape[-1])))
    return block.float().train()


def forward_backward(block, seed=1):
    """One pass forward and one back: -> x (N, D), out (N, D), dout (N, D), dx (N, D)."""
    rng = np.random.default_rng(seed)
    x, dout = (torch.tensor(rng.normal(size=(B, L, D)).astype(np.float32)) for _ in range(2))
    x.requires_grad_()
    out = block(x)
    out = out[0] if isinstance(out, tuple) else out  # versions 4 return the router's logits too
    out.backward(dout)
    return tuple(a.detach().numpy().reshape(N, D) for a in (x, out, dout, x.grad))


def value(p):
    return p.detach().numpy().copy()


def gradient(p):
    """An expert without tokens has None in some versions."""
    return np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy().copy()


def swiglu(modules, names, of):
    """{"w1", "w3", "w2"}, values or gradients; in versions 4 there is one module per expert."""
    if hasattr(modules, "gate_up_proj"):
        w1, w3 = np.split(of(modules.gate_up_proj), 2, axis=1)
        w2 = of(modules.down_proj)
    else:
        w1, w3, w2 = (np.stack([of(getattr(m, name).weight) for m in modules]) for name in names)
    return {"w1": w1.swapaxes(1, 2), "w3": w3.swapaxes(1, 2), "w2": w2.swapaxes(1, 2)}


def same(result, expected, name):
    """Equal to 1e-5 of the largest entry."""
    assert result.dtype == np.float32 and result.shape == expected.shape, name
    assert np.abs(expected).max() > 0, name
    assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max(), name


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(("n_group", "topk_group"), [(1, 1), (4, 2)])
def test_deepseek_v3(renormalise, n_group, topk_group):
    (Block,) = classes("deepseek_v3", "DeepseekV3MoE")
    from transformers import DeepseekV3Config

    config = DeepseekV3Config(
        hidden_size=D,
        moe_intermediate_size=H,
        n_routed_experts=E,
        n_shared_experts=2,
        num_experts_per_tok=3,
        n_group=n_group,
        topk_group=topk_group,
        norm_topk_prob=renormalise,
        routed_scaling_factor=2.5,
    )
    block = filled(Block(config))
    names = ("gate_proj", "up_proj", "down_proj")
    bias = np.random.default_rng(2).uniform(0, 0.4, E).astype(np.float32)
    block.gate.e_score_correction_bias.copy_(torch.tensor(bias))
    x, block_out, dout, block_dx = forward_backward(block)

    router = {"w": value(block.gate.weight).T, "bias": bias}
    options = {"k": 3, "renormalise": renormalise, "routed_scale": 2.5}
    groups = {"n_group": n_group, "topk_group": topk_group, "group_best": 2}
    routing, gate = bias_balanced.route(router, x, **options, **groups)
    unbiased, _ = bias_balanced.route({**router, "bias": 0 * bias}, x, **options, **groups)
    ungrouped, _ = bias_balanced.route(router, x, **options)
    assert (routing.demand != unbiased.demand).any(), "the bias chooses"
    assert (routing.demand != ungrouped.demand).any() == (n_group > 1), "the groups choose"

    params = swiglu(block.experts, names, value)
    out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
    shared_params = both_shared(block, value)
    all_tokens = shared_experts.routing(N, 2, np.float32)
    shared, shared_cache = sparse_layer.forward(shared_params, x, all_tokens, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    dx_shared, shared_grads, _ = sparse_layer.backward(dout, shared_cache)
    dx_gate, gate_grads = bias_balanced.route_backward(dweight, None, gate)
    same(out + shared, block_out, "out")
    same(dx + dx_shared + dx_gate, block_dx, "dx")
    same(gate_grads["w"], gradient(block.gate.weight).T, "router")
    for name, g in swiglu(block.experts, names, gradient).items():
        same(grads[name], g, name)
    for name, g in both_shared(block, gradient).items():
        same(shared_grads[name], g, f"shared {name}")


def both_shared(block, of):
    """The shared network of width 2H, cut into two experts of width H."""
    names = ("gate_proj", "up_proj", "down_proj")
    w1, w3, w2 = (of(getattr(block.shared_experts, name).weight) for name in names)
    w1, w3 = (w.reshape(2, H, D).swapaxes(1, 2) for w in (w1, w3))
    return {"w1": w1, "w3": w3, "w2": w2.T.reshape(2, H, D)}


def two_layers(modules, of):
    """{"w1", "w2"} of the experts of Switch, which have no biases."""
    nets = [modules[f"expert_{m}"] for m in range(E)]
    w1, w2 = (np.stack([of(getattr(net, name).weight).T for net in nets]) for name in ("wi", "wo"))
    return {"w1": w1, "w2": w2}


@pytest.mark.parametrize("places", [2, 3, L])
def test_switch(places):
    (Block,) = classes("switch_transformers", "SwitchTransformersSparseMLP")
    from transformers import SwitchTransformersConfig

    config = SwitchTransformersConfig(
        d_model=D,
        d_ff=H,
        num_experts=E,
        expert_capacity=places,
        router_jitter_noise=0.0,
        dropout_rate=0.0,
    )
    block = filled(Block(config))
    x, block_out, dout, block_dx = forward_backward(block)

    router = {"w": value(block.router.classifier.weight).T}
    biases = {"b1": np.zeros((E, H), np.float32), "b2": np.zeros((E, D), np.float32)}
    params = {**two_layers(block.experts, value), **biases}
    outs, dxs, router_grads, grads = [], [], [], []
    dropped = 0
    for s in range(B):
        rows = slice(s * L, (s + 1) * L)
        routing, gate = switch.route(router, x[rows], capacity_factor=places * E / L)
        dropped += L - len(routing.token)
        out, cache = sparse_layer.forward(params, x[rows], routing, experts.RELU)
        dx, g, dweight = sparse_layer.backward(dout[rows], cache)
        dx_gate, gate_grads = switch.route_backward(dweight, None, gate)
        outs.append(out)
        dxs.append(dx + dx_gate)
        grads.append(g)
        router_grads.append(gate_grads["w"])
    assert (dropped > 0) == (places < L)
    same(np.concatenate(outs), block_out, "out")
    same(np.concatenate(dxs), block_dx, "dx")
    same(sum(router_grads), gradient(block.router.classifier.weight).T, "router")
    for name, g in two_layers(block.experts, gradient).items():
        same(sum(of_sequence[name] for of_sequence in grads), g, name)


def test_balance_losses():
    """The loss of Mixtral is that of Switch, not divided by k. The code of Switch takes each
    sequence by itself. The z-loss is the same.
    """
    (mixtral_loss,) = classes("mixtral", "load_balancing_loss_func")
    switch_loss, z_loss = classes(
        "switch_transformers", "load_balancing_loss_func", "router_z_loss_func"
    )
    logits = np.random.default_rng(3).normal(size=(B, L, E))
    z = torch.tensor(logits)
    router = {"w": np.eye(E)}
    top_2, _ = top_k.route(router, logits.reshape(N, E), k=2, renormalise=True)
    top_1 = [top_k.route(router, sequence, k=1, renormalise=False)[0] for sequence in logits]
    expected = balance.switch(top_2, divide_by_k=False).value
    assert mixtral_loss((z.reshape(N, E),), E, 2).item() == pytest.approx(expected, rel=1e-6)
    expected = np.mean([balance.switch(routing).value for routing in top_1])
    assert switch_loss(z.softmax(-1), z.argmax(-1)).item() == pytest.approx(expected, rel=1e-6)
    expected = balance.z_loss(top_2).value
    assert z_loss(z).item() == pytest.approx(expected, rel=1e-6)
