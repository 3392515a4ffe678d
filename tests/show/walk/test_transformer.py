"""The walk through a decoder: its arrays are those of the caches and of the gradients."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import balance, cross_entropy
from moe_np.models import decoder
from moe_np.show import walk
from moe_np.show.walk import attention_walk

SMALL = {"vocabulary": 10, "d_model": 8, "layers": 2, "heads": 4, "kv_heads": 2, "d_head": 4}
CONFIGS = {
    "mixtral": {},
    "dense first, window": {"dense_layers": (0,), "window": 3, "dense_hidden": 7},
    "shared, tied": {"shared": 2, "shared_gate": True, "tied": True, "biases": True},
    "qk norm, switch": {"qk_norm": "head", "router": "switch", "options": {"capacity_factor": 1.0}},
    "dense, gelu": {"experts": 1, "expert": "gelu", "layers": 1},
    "hashing": {"router": "hashing", "options": {}, "qk_norm": "whole", "clip_qkv": 0.5},
}


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def problem(name="mixtral"):
    config = decoder.Config(**{**SMALL, "experts": 3, "hidden": 5, **CONFIGS[name]})
    rng = np.random.default_rng(0)
    params = decoder.init(rng, config, dtype=np.float64)
    for layer in params["layers"]:
        for norm in ("norm1", "norm2"):
            layer[norm]["g"] *= rng.uniform(0.5, 1.5, 8)
    ids = rng.integers(10, size=(2, 6))
    targets = np.where(np.arange(6) == 5, -1, np.roll(ids, -1, axis=1))
    return params, ids, targets, config


def losses_of(config):
    """The losses of `loss_and_grads`; a table, which learns no logits, has none."""
    return {"losses": () if config.router == "hashing" else decoder.SWITCH_LOSS}


def by_phase(steps):
    states = list(steps)
    assert len({s.phase for s in states}) == len(states), "a phase occurs once"
    return {s.phase: s for s in states}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_arrays_are_those_of_the_forward_pass(name):
    params, ids, targets, config = problem(name)
    valid = np.arange(6) < np.array([[6], [4]])
    targets = np.where(valid, targets, -1)
    options = {"valid": valid, **losses_of(config)}
    states = by_phase(walk.transformer(params, ids, targets, config, **options))
    logits, cache = decoder.forward(params, ids, config, valid=valid)
    loss = decoder.loss(params, ids, targets, config, **options)
    outputs = [*(b.norm1.x for b in cache.blocks[1:]), cache.norm.x]
    for i, block in enumerate(cache.blocks):
        last = states[f"layer {i}: second residual"]
        wanted = {"x": block.norm1.x, "r1": block.norm1.r, "a": block.norm2.x, "r2": block.norm2.r}
        wanted |= {name: getattr(block.attention, name) for name in ("q", "k", "v")}
        wanted |= {"O": block.attention.heads_out, "x_next": outputs[i]}
        for array, value in wanted.items():
            same(last[array], value)
        same(np.einsum("bhts,bshd->bthd", last["P"], np.repeat(last["v"], 2, axis=2)), last["O"])
        routing = block.mixture.routing
        assigned = states[f"layer {i}, experts: assignments"]
        assert np.array_equal(assigned["expert"], routing.expert)
        same(assigned["weight"], routing.weight)
        if routing.logits is not None:
            shown = states[f"layer {i}, router: routing"]
            same(shown["probs"], routing.probs)
            assert shown.axes["probs"] == ("N", "E")
    same(states["final norm"]["y"], cache.x)
    same(states["head"]["logits"], logits)
    same(states["loss"]["loss"], loss.task)
    same(states["loss of each token"]["token_loss"].sum() / loss.tokens, loss.task)
    if any(loss.balance):
        same(states["load-balancing losses"]["balance"], loss.balance)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradients_are_those_of_the_backward_pass(name):
    params, ids, targets, config = problem(name)
    losses = losses_of(config)
    states = by_phase(walk.transformer(params, ids, targets, config, **losses))
    _, grads = decoder.loss_and_grads(params, ids, targets, config, **losses)
    same(states["backward, embedding"]["dembed"], grads["embed"]["w"])
    same(states["backward, final norm"]["dg"], grads["norm"]["g"])
    if not config.tied:
        same(states["backward, head"]["dhead"], grads["head"]["w"])
    for i, layer in enumerate(grads["layers"]):
        back = f"backward, layer {i}"
        last = states[f"{back}: norm 1"]
        same(last["dg1"], layer["norm1"]["g"])
        same(last["dg2"], layer["norm2"]["g"])
        for array, grad in layer["attention"].items():
            same(last[f"d{array}"], grad["g"] if isinstance(grad, dict) else grad)
        for array, grad in layer["experts"].items():
            same(states[f"{back}, experts: experts"][f"d{array}"], grad)
        for array, grad in layer.get("router", {}).items():
            shown = [s for phase, s in states.items() if phase.startswith(f"{back}, router: ")]
            if f"d{array}" in shown[-1].arrays:
                same(shown[-1][f"d{array}"], grad)
            else:
                assert not grad.any(), "what is not learned"
        for part in ("shared", "shared_gate"):
            for array, grad in layer.get(part, {}).items():
                same(states[f"{back}: input of the experts"][f"d{part}_{array}"], grad)


def test_the_gradients_within_a_layer_are_those_of_difference_quotients():
    """Of the loss, along a direction: through the scores and the probabilities, head by head."""
    params, ids, targets, config = problem("dense, gelu")
    states = by_phase(walk.transformer(params, ids, targets, config))
    last = states["backward, layer 0: norm 1"]
    _, cache = decoder.forward(params, ids, config)
    dS = last["dS"]
    assert not dS[np.isneginf(last["S"])].any()
    same(dS.sum(axis=-1), np.zeros(dS.shape[:3]))
    direction = 1e-6 * np.random.default_rng(1).normal(size=dS.shape)
    S = last["S"] + direction
    e = np.exp(S - last["S"].max(axis=-1, keepdims=True))
    change = e / e.sum(axis=-1, keepdims=True) - last["P"]
    wanted = (direction * dS).sum()
    assert (change * last["dP"]).sum() == pytest.approx(wanted, rel=1e-3)
    q, k = attention_walk.rotated(cache.blocks[0].attention)
    same(q, last["q_turned"])
    same(k, last["k_turned"])
    same(np.linalg.norm(q, axis=-1), np.linalg.norm(last["q"], axis=-1))
    same((last["dq_turned"] * q).sum(), (last["dq"] * last["q"]).sum())
    same((last["dk_turned"] * k).sum(), (last["dk"] * last["k"]).sum())


def test_the_mask_is_causal_has_a_window_and_hides_padding():
    params, ids, targets, config = problem("dense first, window")
    valid = np.arange(6) >= np.array([[0], [2]])
    steps = walk.transformer(params, ids, targets, config, valid=valid)
    state = by_phase(steps)["layer 1: probabilities"]
    t = np.arange(6)[:, None]
    s = np.arange(6)
    wanted = ((s <= t) & (s > t - 3)) & valid[:, None, None, :]
    assert np.array_equal(state["P"] > 0, np.broadcast_to(wanted, state["P"].shape))
    assert np.array_equal(np.isneginf(state["S"]), ~np.broadcast_to(wanted, state["S"].shape))
    sums = state["P"].sum(axis=-1)
    same(sums, np.broadcast_to(wanted.any(axis=-1), sums.shape))
    assert "sliding window" in by_phase(steps.seen)["layer 1: mask"].note
    assert "padding" in by_phase(steps.seen)["layer 1: mask"].note


def test_all_axes_have_names_and_what_is_new_is_marked():
    params, ids, targets, config = problem()
    states = by_phase(walk.transformer(params, ids, targets, config))
    for state in states.values():
        for array, axes in state.axes.items():
            assert len(axes) == state[array].ndim, f"{state.phase}: {array}"
        assert 1 <= len(state.changed) <= 4 or state.phase.endswith(
            ("input", "experts: assignments")
        )
    assert states["final norm, 1/rms"].changed == ("x", "r")
    assert states["backward, layer 0: second residual"].changed == ("dx_next", "dm")
    assert states["backward, embedding"].changed == ("dx", "dembed")
    assert list(states)[-1] == "backward, embedding"


def test_other_losses_and_arguments_that_do_not_fit():
    params, ids, targets, config = problem()
    none = by_phase(walk.transformer(params, ids, targets, config, losses=()))
    assert "load-balancing losses" not in none
    important = ((0.5, balance.importance),)
    states = by_phase(walk.transformer(params, ids, targets, config, losses=important))
    _, grads = decoder.loss_and_grads(params, ids, targets, config, losses=important)
    shown = states["backward, layer 1, router: parameters and tokens"]
    same(shown["dw"], grads["layers"][1]["router"]["w"])
    rows = states["head"]["logits"].reshape(-1, 10)
    same(cross_entropy.forward(rows, targets.ravel())[0], states["loss"]["loss"])
    with pytest.raises(InputError, match="ids"):
        walk.transformer(params, ids + 10, targets, config)
    with pytest.raises(InputError, match="targets"):
        walk.transformer(params, ids, targets[:, :3], config)
    noisy = config._replace(router="noisy_top_k", options={"k": 2})
    params = decoder.init(np.random.default_rng(0), noisy, dtype=np.float64)
    with pytest.raises(InputError, match="losses: wanted those of logits or weights"):
        walk.transformer(params, ids, targets, noisy, losses=((0.1, balance.load),))
