"""Competing experts (a width σ, a gate with its own inputs): gradients, limits, the choice of σ."""

import numpy as np
import pytest

from moe_np import kernels
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.mixtures import jacobs1991, nowlan1991


def random_case(kind, seed=0, N=7, E=3, D=2, Z=4, C=3):
    """Parameters, inputs of experts and gate, targets, and the generator."""
    rng = np.random.default_rng(seed)
    params = nowlan1991.init(rng, E, D, Z, C, init_range=0.8)
    params |= {name: rng.normal(size=params[name].shape) for name in ("U", "c")}
    d = np.eye(C)[rng.integers(C, size=N)] if kind != "linear" else rng.normal(size=(N, C))
    return params, rng.normal(size=(N, D)), rng.normal(size=(N, Z)), d, rng


@pytest.mark.parametrize("kind", jacobs1991.OUTPUT_UNITS)
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_gradients(kind, sigma):
    params, x, z, d, rng = random_case(kind)
    options = {"sigma": sigma, "kind": kind}
    dloss = rng.normal(size=len(x))
    loss, cache = nowlan1991.system_forward(params, x, z, d, **options)
    dx, dz, grads = nowlan1991.system_backward(dloss, cache)

    def value(p):
        of_params = {name: p[name] for name in params}
        loss, _ = nowlan1991.system_forward(of_params, p["x"], p["z"], d, **options)
        return (loss * dloss).sum()

    inputs = {**params, "x": x, "z": z}
    errors = gradient_error(value, inputs, {**grads, "x": dx, "z": dz}, rng, step=3e-4)
    assert max(errors.values()) < 1e-7, errors

    def mean_loss(p):
        return nowlan1991.mean_loss(p, x, z, d, **options)[0]

    mean, mean_grads = nowlan1991.mean_loss(params, x, z, d, **options)
    assert mean == pytest.approx(loss.mean())
    errors = gradient_error(mean_loss, params, mean_grads, rng, step=3e-4)
    assert max(errors.values()) < 1e-7, errors


def test_sigma_1_and_the_same_inputs_are_eq_3_of_jacobs():
    params, x, _, d, _ = random_case("logistic", Z=2)
    loss, cache = nowlan1991.system_forward(params, x, x, d, sigma=1.0, kind="logistic")
    wanted, cache_1991 = jacobs1991.system_forward(params, x, d, "mixture", "logistic")
    np.testing.assert_allclose(loss, wanted, rtol=1e-12)
    dx, dz, grads = nowlan1991.system_backward(np.ones(len(x)), cache)
    dx_wanted, grads_wanted = jacobs1991.system_backward(np.ones(len(x)), cache_1991)
    np.testing.assert_allclose(dx + dz, dx_wanted, rtol=1e-10)
    for name, g in grads_wanted.items():
        np.testing.assert_allclose(grads[name], g, rtol=1e-10)


def test_log_likelihood_is_a_density():
    params, x, z, _, _ = random_case("linear", N=1, C=1)
    d = np.linspace(-30, 30, 20001)[:, None]
    inputs = (np.repeat(a, len(d), axis=0) for a in (x, z))
    loss, _ = nowlan1991.system_forward(params, *inputs, d, sigma=0.7, kind="linear")
    density = np.exp(nowlan1991.log_likelihood(loss, 0.7, 1))
    assert density.sum() * (d[1, 0] - d[0, 0]) == pytest.approx(1, abs=1e-9)


def test_refitting_sigma_never_lowers_the_likelihood():
    params, x, z, d, _ = random_case("linear", N=30)
    sigma = 2.0
    before = -np.inf
    for _ in range(20):
        loss, cache = nowlan1991.system_forward(params, x, z, d, sigma=sigma, kind="linear")
        likelihood = nowlan1991.log_likelihood(loss, sigma, d.shape[1]).sum()
        assert likelihood >= before - 1e-9
        before = likelihood
        sigma = nowlan1991.refit_sigma(d, cache)


def test_predictions():
    params, x, z, _, _ = random_case("softmax")
    blend, top_output, top = nowlan1991.predict(params, x, z)
    p, _ = jacobs1991.gate_forward(params, z)
    o, _ = jacobs1991.experts_forward(params, x, "softmax")
    np.testing.assert_array_equal(top, p.argmax(1))
    for n in range(len(x)):
        np.testing.assert_allclose(blend[n], p[n] @ o[n])
        np.testing.assert_array_equal(top_output[n], o[n, top[n]])


def test_bad_input_is_named():
    params, x, z, d, _ = random_case("softmax")
    nowlan1991.check(params, x, z, d, 0.25)
    for bad, words in (
        ((params, x[:, :1], z, d, 0.25), "x: wanted shape"),
        ((params, x, z[:3], d, 0.25), "z: wanted shape"),
        ((params, x, z, d[:, :2], 0.25), "d: wanted shape"),
        ((params, x, z, d, 0.0), "sigma: wanted a finite number above 0"),
        ((params, x[:0], z[:0], d[:0], 0.25), "x: wanted at least one case"),
        (({"W": params["W"]}, x, z, d, 0.25), "params: wanted a dict with W, b, U and c"),
    ):
        with pytest.raises(InputError, match=words):
            nowlan1991.check(*bad)
    with pytest.raises(InputError, match="E: wanted a whole number of at least 1, got 0"):
        nowlan1991.init(np.random.default_rng(0), 0, 2, 2, 3)
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        nowlan1991.init(0, 3, 2, 2, 3)


@pytest.mark.parametrize("backend", ["numpy", None])
@pytest.mark.parametrize("kind", jacobs1991.OUTPUT_UNITS)
def test_mean_loss_of_is_mean_loss(kind, backend, monkeypatch):
    if backend:
        monkeypatch.setenv("MOE_NP_KERNELS", backend)
    else:
        monkeypatch.delenv("MOE_NP_KERNELS", raising=False)
    params, x, z, d, _ = random_case(kind)
    wanted, wanted_grads = nowlan1991.mean_loss(params, x, z, d, sigma=0.4, kind=kind)
    loss, grads = nowlan1991.mean_loss_of(x, z, d, sigma=0.4, kind=kind)(params)
    assert loss == pytest.approx(wanted, rel=1e-12)
    for name in params:
        np.testing.assert_allclose(grads[name], wanted_grads[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("backend", ["", "numpy"])
def test_parameters_of_a_fixed_loss_are_checked(monkeypatch, backend):
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    rng = np.random.default_rng(0)
    params = nowlan1991.init(rng, 3, 2, 2, 3)
    x, d = rng.normal(size=(10, 2)), np.eye(3)[rng.integers(0, 3, 10)]
    loss_of = nowlan1991.mean_loss_of(x, x, d, sigma=0.5)
    value, _ = loss_of(params)
    assert loss_of({name: p.tolist() for name, p in params.items()})[0] == value
    for name, bad in (("W", np.ones((3, 2, 2))), ("b", np.ones((2, 3))), ("U", np.ones((2, 4)))):
        with pytest.raises(InputError, match="wanted shape"):
            loss_of({**params, name: bad})
    for sigma in (0, np.nan, "1"):
        with pytest.raises(InputError, match="sigma: wanted a finite number above 0"):
            nowlan1991.mean_loss_of(x, x, d, sigma=sigma)
    with pytest.raises(InputError, match="params: wanted") as error:
        nowlan1991.check({"W": np.ones((99, 99, 9))}, x, x, d, 0.5)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "C", "dtype", "compiled"),
    [
        ("softmax", 2, np.float64, True),
        ("softmax", 1, np.float64, False),
        ("linear", 2, np.float64, False),
        ("softmax", 2, np.float32, False),
    ],
)
def test_the_compiled_loss_is_used_for_what_it_is_written_for(
    kind, C, dtype, compiled, monkeypatch
):
    pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", "numba")
    made = []
    make = kernels.nowlan1991.mean_loss_of
    monkeypatch.setattr(
        kernels.nowlan1991, "mean_loss_of", lambda *given: made.append(1) or make(*given)
    )
    params, x, z, d, _ = random_case(kind, C=C)
    x, z, d = (a.astype(dtype) for a in (x, z, d))
    params = {name: p.astype(dtype) for name, p in params.items()}
    loss, _ = nowlan1991.mean_loss_of(x, z, d, sigma=0.4, kind=kind)(params)
    assert bool(made) == compiled
    assert loss == pytest.approx(nowlan1991.mean_loss(params, x, z, d, sigma=0.4, kind=kind)[0])
