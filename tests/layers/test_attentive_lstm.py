"""The LSTM layer that attends: a loop over positions, the gradient of everything, padding."""

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.layers import attentive_lstm, lstm

both = pytest.mark.parametrize("projection", [None, 3])


def problem(projection, B=2, T=4, S=5, D_y=3, D=4, H=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    params = attentive_lstm.init(rng, D_y, D, H, projection, d_attention=7, dtype=dtype)
    params = {name: (p + rng.normal(size=p.shape) / 2).astype(dtype) for name, p in params.items()}
    y = rng.normal(size=(B, T, D_y)).astype(dtype)
    memory = rng.normal(size=(B, S, D)).astype(dtype)
    valid = np.ones((B, S), bool)
    valid[1, 3:] = False
    for array in (*params.values(), y, memory, valid):
        array.flags.writeable = False
    return params, y, memory, valid


def naive(params, y, memory):
    """One sequence: the equations position by position, with the LSTM layer for each step."""
    P, H4 = params["wh"].shape
    state = lstm.State(np.zeros((1, P)), np.zeros((1, H4 // 4)))
    outputs, contexts = [], []
    of_lstm = {name: params[name] for name in ("wx", "wh", "b", "wp") if name in params}
    for row in y:
        query = np.tanh(state.h[0] @ params["w"])
        scores = [sum(params["v"] * np.tanh(x @ params["u"]) * query) for x in memory]
        weights = np.exp(scores) / np.exp(scores).sum()
        context = sum(a * x for a, x in zip(weights, memory, strict=True))
        step = np.concatenate([row, context])[None, None]
        h, state, _ = lstm.forward(of_lstm, step, state)
        outputs.append(h[0, 0])
        contexts.append(context)
    return np.array(outputs), np.array(contexts)


@both
def test_it_equals_a_loop_over_positions(projection):
    params, y, memory, valid = problem(projection)
    keys = attentive_lstm.keys_of(params, memory, valid)
    h, context, last, cache = attentive_lstm.forward(params, y, keys)
    for b, length in enumerate([5, 3]):
        expected, contexts = naive(params, y[b], memory[b, :length])
        np.testing.assert_allclose(h[b], expected, rtol=1e-12)
        np.testing.assert_allclose(context[b], contexts, rtol=1e-12)
    np.testing.assert_allclose(last.h, h[:, -1])
    np.testing.assert_allclose(cache.a.sum(axis=2), 1)
    assert (cache.a[:, 1, 3:] == 0).all()


@both
def test_gradient(projection):
    """Of outputs and contexts, for all parameters, the inputs and the memory."""
    params, y, memory, valid = problem(projection)
    rng = np.random.default_rng(1)

    def run(p):
        names = {name: p[name] for name in params}
        keys = attentive_lstm.keys_of(names, p["memory"], valid)
        return attentive_lstm.forward(names, p["y"], keys)

    h, context, _, cache = run({**params, "y": y, "memory": memory})
    dh, dcontext = rng.normal(size=h.shape), rng.normal(size=context.shape)

    def loss(p):
        h, context, _, _ = run(p)
        return (h * dh).sum() + (context * dcontext).sum()

    dy, dmemory, grads = attentive_lstm.backward(dh, dcontext, cache)
    assert grads.keys() == params.keys()
    everything = {**params, "y": y, "memory": memory}
    errors = gradcheck.gradient_error(loss, everything, {**grads, "y": dy, "memory": dmemory}, rng)
    assert max(errors.values()) < 1e-8
    assert (dmemory[1, 3:] == 0).all()


def test_padding_of_the_memory_changes_nothing():
    params, y, memory, valid = problem(None)
    keys = attentive_lstm.keys_of(params, memory, valid)
    h, context, _, _ = attentive_lstm.forward(params, y, keys)
    changed = memory.copy()
    changed[1, 3:] = 100
    other = attentive_lstm.forward(params, y, attentive_lstm.keys_of(params, changed, valid))
    assert np.array_equal(other[0], h) and np.array_equal(other[1], context)


def test_without_padding_every_position_is_valid():
    params, _, memory, _ = problem(None)
    keys = attentive_lstm.keys_of(params, memory)
    other = attentive_lstm.keys_of(params, memory, np.ones((2, 5), bool))
    assert all(np.array_equal(a, b) for a, b in zip(keys, other, strict=True))
    assert keys.valid.shape == (2, 5) and keys.valid.all()


def test_without_a_valid_position_the_context_is_0():
    """Pitfall 5: and not NaN, forward and backward."""
    params, y, memory, _ = problem(None)
    keys = attentive_lstm.keys_of(params, memory, np.zeros((2, 5), bool))
    h, context, _, cache = attentive_lstm.forward(params, y, keys)
    assert (context == 0).all() and np.isfinite(h).all()
    _, dmemory, grads = attentive_lstm.backward(np.ones_like(h), np.ones_like(context), cache)
    assert (dmemory == 0).all() and (grads["u"] == 0).all()
    assert np.isfinite(grads["wx"]).all()


@both
def test_step_by_step_is_the_whole(projection):
    params, y, memory, valid = problem(projection, dtype=np.float32)
    keys = attentive_lstm.keys_of(params, memory, valid)
    h, context, _, _ = attentive_lstm.forward(params, y, keys)
    assert h.dtype == context.dtype == np.float32
    state = None
    for t in range(4):
        step, of_step, state, _ = attentive_lstm.forward(params, y[:, t : t + 1], keys, state)
        np.testing.assert_allclose(step[:, 0], h[:, t], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(of_step[:, 0], context[:, t], rtol=1e-5, atol=1e-6)


def test_bad_input():
    params, y, memory, valid = problem(None)
    keys = attentive_lstm.keys_of(params, memory, valid)
    with pytest.raises(InputError, match=r"memory: wanted shape \(B, S, 4\)"):
        attentive_lstm.keys_of(params, memory[:, :, 1:])
    with pytest.raises(InputError, match=r"valid: wanted bool of shape \(2, 5\)"):
        attentive_lstm.keys_of(params, memory, valid[:, 1:])
    with pytest.raises(InputError, match=r"y: wanted shape \(2, T, 3\)"):
        attentive_lstm.forward(params, y[:1], keys)
    with pytest.raises(InputError, match="y: wanted float64, the type of the parameters"):
        attentive_lstm.forward(params, y.astype(np.float32), keys)
    with pytest.raises(InputError, match=r"params\['wx'\]: wanted more than 4 rows"):
        attentive_lstm.forward({**params, "wx": params["wx"][:4]}, y, keys)
    with pytest.raises(InputError, match=r"state\.h: wanted shape \(2, 6\)"):
        attentive_lstm.forward(params, y, keys, lstm.State(np.zeros((2, 5)), np.zeros((2, 6))))
