"""The mixture with a width and a gate of its own: gradients, and what it must be equal to."""

import importlib.util

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.experiments.common.minimise import flatten, minimise, unflatten
from moe_np.mixtures import jacobs1991 as model
from moe_np.mixtures import nowlan1991 as competing


def case(kind, seed=0, N=7, E=3, D=2, Z=4, C=3):
    rng = np.random.default_rng(seed)
    params = competing.init(rng, E, D, Z, C, spread=0.8)
    params |= {k: rng.normal(size=params[k].shape) for k in ("U", "c")}
    d = np.eye(C)[rng.integers(C, size=N)] if kind != "linear" else rng.normal(size=(N, C))
    return params, rng.normal(size=(N, D)), rng.normal(size=(N, Z)), d, rng


@pytest.mark.parametrize("kind", model.EXPERTS)
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_gradients(kind, sigma):
    params, x, z, d, rng = case(kind)
    dloss = rng.normal(size=len(x))
    loss, cache = competing.system_forward(params, x, z, d, sigma=sigma, kind=kind)
    dx, dz, grads = competing.system_backward(dloss, cache)

    def value(p):
        own = {k: p[k] for k in params}
        return (
            competing.system_forward(own, p["x"], p["z"], d, sigma=sigma, kind=kind)[0] * dloss
        ).sum()

    errors = gradient_error(
        value, {**params, "x": x, "z": z}, {**grads, "x": dx, "z": dz}, rng, step=3e-4
    )
    assert max(errors.values()) < 1e-7, errors
    mean, of_mean = competing.mean_loss(params, x, z, d, sigma=sigma, kind=kind)
    assert mean == pytest.approx(loss.mean())
    errors = gradient_error(
        lambda p: competing.mean_loss(p, x, z, d, sigma=sigma, kind=kind)[0],
        params,
        of_mean,
        rng,
        step=3e-4,
    )
    assert max(errors.values()) < 1e-7, errors


def test_sigma_1_and_one_input_are_eq_3_of_jacobs():
    params, x, _, d, _ = case("logistic", Z=2)
    loss, cache = competing.system_forward(params, x, x, d, sigma=1.0, kind="logistic")
    wanted, theirs = model.system_forward(params, x, d, "mixture", "logistic")
    np.testing.assert_allclose(loss, wanted, rtol=1e-12)
    dx, dz, grads = competing.system_backward(np.ones(len(x)), cache)
    dx_wanted, grads_wanted = model.system_backward(np.ones(len(x)), theirs)
    np.testing.assert_allclose(dx + dz, dx_wanted, rtol=1e-10)
    for k, g in grads_wanted.items():
        np.testing.assert_allclose(grads[k], g, rtol=1e-10)


def test_log_likelihood_is_a_density():
    params, x, z, _, _ = case("linear", N=1, C=1)
    d = np.linspace(-30, 30, 20001)[:, None]
    many = (np.repeat(a, len(d), axis=0) for a in (x, z))
    loss, _ = competing.system_forward(params, *many, d, sigma=0.7, kind="linear")
    density = np.exp(competing.log_likelihood(loss, 0.7, 1))
    assert density.sum() * (d[1, 0] - d[0, 0]) == pytest.approx(1, abs=1e-9)


def test_refitting_sigma_never_lowers_the_likelihood():
    params, x, z, d, _ = case("linear", N=30)

    def likelihood(sigma):
        return competing.log_likelihood(
            competing.system_forward(params, x, z, d, sigma=sigma, kind="linear")[0],
            sigma,
            d.shape[1],
        ).sum()

    sigma, last = 2.0, -np.inf
    for _ in range(20):
        assert likelihood(sigma) >= last - 1e-9
        last = likelihood(sigma)
        sigma = competing.refit_sigma(
            d, competing.system_forward(params, x, z, d, sigma=sigma, kind="linear")[1]
        )


def test_predictions():
    params, x, z, _, _ = case("softmax")
    blend, of_top, top = competing.predict(params, x, z)
    p = model.gate_forward(params, z)[0]
    o = model.experts_forward(params, x, "softmax")[0]
    np.testing.assert_array_equal(top, p.argmax(1))
    for n in range(len(x)):
        np.testing.assert_allclose(blend[n], p[n] @ o[n])
        np.testing.assert_array_equal(of_top[n], o[n, top[n]])


def test_bad_input_is_named():
    params, x, z, d, _ = case("softmax")
    competing.check(params, x, z, d, 0.25)
    for bad, words in (
        ((params, x[:, :1], z, d, 0.25), "x: wanted shape"),
        ((params, x, z[:3], d, 0.25), "z: wanted shape"),
        ((params, x, z, d[:, :2], 0.25), "d: wanted shape"),
        ((params, x, z, d, 0.0), "sigma: wanted a finite number above 0"),
        ((params, x[:0], z[:0], d[:0], 0.25), "x: wanted at least one case"),
        (({"W": params["W"]}, x, z, d, 0.25), "params: wanted a dict with W, b, U and c"),
    ):
        with pytest.raises(InputError, match=words):
            competing.check(*bad)
    with pytest.raises(InputError, match="E: wanted a whole number of at least 1, got 0"):
        competing.init(np.random.default_rng(0), 0, 2, 2, 3)
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        competing.init(0, 3, 2, 2, 3)


def test_minimise_finds_the_minimum_of_a_quadratic():
    rng = np.random.default_rng(0)
    target = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}

    def loss_and_grads(p):
        return sum(((p[k] - target[k]) ** 2).sum() for k in p), {
            k: 2 * (p[k] - target[k]) for k in reversed(p)
        }

    start = {k: np.zeros_like(v) for k, v in target.items()}
    found = minimise(loss_and_grads, start)
    assert found.converged and found.loss < 1e-8 and not flatten(start).any()
    for k in target:
        np.testing.assert_allclose(found.params[k], target[k], atol=1e-4)
    again = unflatten(flatten(target), target)
    assert all(np.array_equal(again[k], target[k]) for k in target)
    assert not minimise(loss_and_grads, start, max_iter=1).converged


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")
@pytest.mark.parametrize(("N", "scale"), [(7, 1.0), (16, 1.0), (9, 40.0)])
def test_the_compiled_pass_is_the_written_one(N, scale):
    from moe_np.kernels import nowlan1991 as compiled

    params, x, z, d, _ = case("softmax", N=N)
    params = {k: scale * v for k, v in params.items()}  # large totals: softmaxes at their ends
    wanted, grads = competing.mean_loss(params, x, z, d, sigma=0.25)
    found, compiled_grads = compiled.mean_loss_of(x, z, d, 0.25)(params)
    assert found == pytest.approx(wanted, rel=1e-12)
    for k, g in grads.items():
        assert compiled_grads[k].shape == g.shape
        np.testing.assert_allclose(compiled_grads[k], g, rtol=1e-9, atol=1e-12)


def test_mean_loss_of_is_mean_loss(monkeypatch):
    for kind in model.EXPERTS:
        params, x, z, d, _ = case(kind)
        wanted = competing.mean_loss(params, x, z, d, sigma=0.4, kind=kind)
        for backend in ("numpy", None):
            if backend:
                monkeypatch.setenv("MOE_NP_KERNELS", backend)
            else:
                monkeypatch.delenv("MOE_NP_KERNELS")
            found = competing.mean_loss_of(x, z, d, sigma=0.4, kind=kind)(params)
            assert found[0] == pytest.approx(wanted[0], rel=1e-12)
            for k in params:
                np.testing.assert_allclose(found[1][k], wanted[1][k], rtol=1e-10, atol=1e-14)
