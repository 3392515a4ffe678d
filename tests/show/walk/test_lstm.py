"""The walk through an LSTM layer: its arrays are those of the cache and of the gradients."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import lstm
from moe_np.show import walk


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def problem(projection=None):
    rng = np.random.default_rng(0)
    params = lstm.init(rng, 3, 4, projection)
    params["b"] += rng.normal(size=16)
    P = projection or 4
    state = lstm.State(rng.normal(size=(2, P)), rng.normal(size=(2, 4)))
    dstate = lstm.State(rng.normal(size=(2, P)), rng.normal(size=(2, 4)))
    return params, rng.normal(size=(2, 3, 3)), state, rng.normal(size=(2, 3, P)), dstate


def by_phase(steps):
    states = list(steps)
    assert len({s.phase for s in states}) == len(states), "a phase occurs once"
    return {s.phase: s for s in states}


@pytest.mark.parametrize("projection", [None, 2])
def test_every_step_gate_by_gate(projection):
    params, x, state, *_ = problem(projection)
    states = by_phase(walk.lstm(params, x, state))
    out, _, cache = lstm.forward(params, x, state)
    for t in range(3):
        last = states[f"step {t}: " + ("projection" if projection else "output")]
        for letter, gate in zip("ifgo", lstm.parts(cache.gates[t]), strict=True):
            same(last[letter], gate)
        c, m, gates, tanh_c = lstm.cell_forward(last["z"], cache.c[t])
        same(gates, cache.gates[t])
        same(last["c"], c)
        same(last["tanh_c"], tanh_c)
        same(last["h"], out[:, t])
        same(last["c_before"], cache.c[t])
        if projection:
            same(last["m"], m)
    assert list(states)[-1] == "outputs" and len(states) == 2 + 3 * (9 + bool(projection))
    same(states["outputs"]["h"], out)


@pytest.mark.parametrize("projection", [None, 2])
def test_back_through_time(projection):
    params, x, state, dh, dstate = problem(projection)
    states = by_phase(walk.lstm(params, x, state, dh, dstate))
    _, _, cache = lstm.forward(params, x, state)
    dx, before, grads = lstm.backward(dh, cache, dstate)
    for name, grad in grads.items():
        same(states["backward, parameters"][f"d{name}"], grad)
    same(states["backward, inputs"]["dx"], dx)
    first = states["backward, step 0: state before"]
    same(first["dh_before"], before.h)
    same(first["dc_before"], before.c)
    same(states["backward, first state"]["dh_before"], before.h)
    same(states["backward, first state"]["dc_before"], before.c)
    dwx = 0
    for t in range(3):
        last = states[f"backward, step {t}: state before"]
        i, f, g, o = lstm.parts(cache.gates[t])
        through = (last["di"] * i * (1 - i), last["df"] * f * (1 - f))
        through += (last["dg"] * (1 - g * g), last["do"] * o * (1 - o))
        same(np.concatenate(through, axis=1), last["dz"])
        same(last["dc"] * f, last["dc_before"])
        dwx += x[:, t].T @ last["dz"]
    same(dwx, grads["wx"])
    order = [phase for phase in states if phase.startswith("backward, step")]
    assert order[0].startswith("backward, step 2") and order[-1].startswith("backward, step 0")


def test_all_axes_have_names_and_a_gradient_that_does_not_fit_is_an_error():
    params, x, state, dh, _ = problem(2)
    for s in walk.lstm(params, x, state, dh):
        for array, axes in s.axes.items():
            assert len(axes) == s[array].ndim, f"{s.phase}: {array}"
    with pytest.raises(InputError, match="dh"):
        walk.lstm(params, x, state, dh[:, :2])
    with pytest.raises(InputError, match="x"):
        walk.lstm(params, x[:, :, :2])
