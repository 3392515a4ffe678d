"""LSTM (pitfall 29): a loop over single numbers, projection gradient check, state in and out."""

import math

import numpy as np
import pytest

from moe_np import kernels
from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.layers import lstm

both = pytest.mark.parametrize("projection", [None, 3])


def problem(projection, B=2, T=5, D=4, H=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    params = lstm.init(rng, D, H, projection, dtype=dtype)
    params = {name: (p + rng.normal(size=p.shape) / 2).astype(dtype) for name, p in params.items()}
    x = rng.normal(size=(B, T, D)).astype(dtype)
    P = H if projection is None else projection
    state = lstm.State(rng.normal(size=(B, P)).astype(dtype), rng.normal(size=(B, H)).astype(dtype))
    for array in (*params.values(), x, *state):
        array.flags.writeable = False
    return params, x, state


def naive(params, x, h, c):
    """One sequence, one unit after the other; gates in the order i, f, g, o."""
    H = len(c)
    out = []
    for row in x:
        z = [
            sum(row[d] * params["wx"][d, j] for d in range(len(row)))
            + sum(h[p] * params["wh"][p, j] for p in range(len(h)))
            + params["b"][j]
            for j in range(4 * H)
        ]
        i, f, o = ([1 / (1 + math.exp(-v)) for v in z[k * H : (k + 1) * H]] for k in (0, 1, 3))
        g = [math.tanh(v) for v in z[2 * H : 3 * H]]
        c = [f[n] * c[n] + i[n] * g[n] for n in range(H)]
        h = [o[n] * math.tanh(c[n]) for n in range(H)]
        if "wp" in params:
            h = [
                sum(h[n] * params["wp"][n, p] for n in range(H))
                for p in range(params["wp"].shape[1])
            ]
        out.append(h)
    return np.array(out), np.array(h), np.array(c)


@both
def test_it_equals_a_loop_over_numbers(backend, projection):
    params, x, state = problem(projection)
    h, last, _ = lstm.forward(params, x, state)
    for b in range(2):
        expected, expected_h, expected_c = naive(params, x[b], state.h[b], state.c[b])
        np.testing.assert_allclose(h[b], expected, rtol=1e-12)
        np.testing.assert_allclose(last.h[b], expected_h, rtol=1e-12)
        np.testing.assert_allclose(last.c[b], expected_c, rtol=1e-12)


@both
def test_gradient(backend, projection):
    """Of outputs and last state together, for the parameters, x and the initial state."""
    params, x, state = problem(projection)
    rng = np.random.default_rng(1)
    dout = [rng.normal(size=a.shape) for a in flat(lstm.forward(params, x, state))]

    def loss(p):
        out = lstm.forward({k: p[k] for k in params}, p["x"], lstm.State(p["h0"], p["c0"]))
        return sum((a * d).sum() for a, d in zip(flat(out), dout, strict=True))

    _, _, cache = lstm.forward(params, x, state)
    dx, dstate, grads = lstm.backward(dout[0], cache, lstm.State(*dout[1:]))
    everything = {**params, "x": x, "h0": state.h, "c0": state.c}
    grads = {**grads, "x": dx, "h0": dstate.h, "c0": dstate.c}
    errors = gradcheck.gradient_error(loss, everything, grads, rng)
    assert max(errors.values()) < 1e-8


def flat(out):
    h, last, _ = out
    return h, last.h, last.c


@both
def test_a_text_in_stretches_is_the_same_text(backend, projection):
    """The state goes from one stretch to the next; with the gradient of the state too it would be
    the whole backward pass, without it truncated backpropagation through time.
    """
    params, x, state = problem(projection)
    whole, last, cache = lstm.forward(params, x, state)
    first, middle, cache1 = lstm.forward(params, x[:, :2], state)
    second, end, cache2 = lstm.forward(params, x[:, 2:], middle)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-13)
    for a, b in zip(end, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)

    dh = np.random.default_rng(2).normal(size=whole.shape)
    dx, dstate, grads = lstm.backward(dh, cache)
    dx2, dmiddle, grads2 = lstm.backward(dh[:, 2:], cache2)
    dx1, dstate1, grads1 = lstm.backward(dh[:, :2], cache1, dmiddle)
    np.testing.assert_allclose(np.concatenate([dx1, dx2], axis=1), dx, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(dstate1.c, dstate.c, rtol=1e-11)
    for name in grads:
        np.testing.assert_allclose(grads1[name] + grads2[name], grads[name], rtol=1e-10)
    truncated = lstm.backward(dh[:, :2], cache1)[2]
    assert np.abs(truncated["wh"] - grads1["wh"]).max() > 1e-3


def test_a_state_of_zeros_begins_another_text(backend):
    params, x, state = problem(3)
    fresh = lstm.zero_state(params, 2)
    assert fresh.h.shape == (2, 3) and fresh.c.shape == (2, 6)
    h, _, _ = lstm.forward(params, x, fresh)
    assert np.array_equal(h, lstm.forward(params, x)[0])
    assert np.abs(h - lstm.forward(params, x, state)[0]).max() > 1e-3


def test_the_forget_gate_is_open_at_first():
    params = lstm.init(np.random.default_rng(0), 4, 6)
    assert params["b"].tolist() == [0] * 6 + [1] * 6 + [0] * 12
    assert set(params) == {"wx", "wh", "b"} and params["wh"].shape == (6, 24)
    params = lstm.init(np.random.default_rng(0), 4, 6, 3, forget_bias=0.5, dtype=np.float32)
    assert params["wh"].shape == (3, 24) and params["wp"].shape == (6, 3)
    assert params["b"][6] == 0.5 and params["b"].dtype == np.float32


@both
def test_float32_and_no_steps(backend, projection):
    params, x, state = problem(projection, dtype=np.float32)
    h, last, cache = lstm.forward(params, x, state)
    dx, dstate, grads = lstm.backward(np.ones_like(h), cache)
    assert {a.dtype for a in (h, *last, dx, *dstate, *grads.values())} == {np.dtype("float32")}
    h, last, cache = lstm.forward(params, x[:, :0], state)
    assert h.shape[1] == 0 and np.array_equal(last.c, state.c)
    dx, dstate, grads = lstm.backward(h, cache, state)
    assert np.array_equal(dstate.h, state.h) and not grads["wx"].any()


def test_bad_input():
    params, x, _ = problem(None)
    with pytest.raises(InputError, match=r"x: wanted shape \(B, T, 4\), got \(2, 5, 3\)"):
        lstm.forward(params, x[:, :, :3])
    with pytest.raises(InputError, match="x: wanted float64, the type of the parameters"):
        lstm.forward(params, x.astype(np.float32))
    with pytest.raises(InputError, match=r"params\['wh'\]: wanted 4·5 columns, four gates, got 24"):
        lstm.forward({**params, "wh": params["wh"][:5]}, x)
    with pytest.raises(InputError, match=r"state\.c: wanted shape \(2, 6\)"):
        lstm.forward(params, x, lstm.State(np.zeros((2, 6)), np.zeros((2, 5))))
    with pytest.raises(InputError, match="params: wanted the keys wx, wh, b"):
        lstm.forward({"wx": params["wx"]}, x)


@pytest.mark.parametrize(("mode", "compiled"), [("numba", True), ("numpy", False)])
def test_the_compiled_loops_are_used_where_they_are_wanted(mode, compiled, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", mode)
    called = []
    for name in ("forward", "backward"):
        loop = getattr(kernels.lstm, name)
        monkeypatch.setattr(
            kernels.lstm,
            name,
            lambda *given, name=name, loop=loop: called.append(name) or loop(*given),
        )
    params, x, state = problem(3)
    h, _, cache = lstm.forward(params, x, state)
    lstm.backward(np.ones_like(h), cache)
    assert called == (["forward", "backward"] if compiled else [])


def test_a_gradient_that_is_not_finite_goes_through(backend):
    params, x, state = problem(None)
    h, _, cache = lstm.forward(params, x, state)
    dx, _, _ = lstm.backward(np.full_like(h, np.nan), cache)
    assert np.isnan(dx).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": int}, "dtype: wanted"),
        ({"dtype": "text"}, "dtype: wanted"),
        ({"rng": 0}, "rng: wanted"),
        ({"d_model": 0}, "wanted a whole number of at least 1, got 0"),
    ],
)
def test_a_bad_initialisation_is_named(change, words):
    values = {"rng": np.random.default_rng(0), "d_model": 4, "dtype": float, **change}
    with pytest.raises(InputError, match=words):
        lstm.init(values["rng"], values["d_model"], 6, dtype=values["dtype"])
