"""The compiled training loops of 1991: against the equations, and at the ends of the range."""

import itertools

import numpy as np
import pytest

from moe_np.mixtures import jacobs1991 as twin
from tests.support.kernels import numba

if numba:
    from moe_np.kernels import jacobs1991

SYSTEMS = [("mixture", 1, 13, 2), ("mixture", 3, 8, 2), ("net", 1, 9, 3), ("net", 3, 16, 2)]


def random_params(rng, system="mixture", C=1, D=2):
    shapes = {"W": (3, D, C), "b": (3, C), "U": (D, 3), "c": (3,)}
    if system == "net":
        shapes = {"W": (D, 4), "b": (4,), "V": (4, C), "c": (C,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("system,C,N,D", SYSTEMS)
def test_epochs_are_those_of_the_equations(system, C, N, D):
    rng = np.random.default_rng(1)
    params = random_params(rng, system, C, D)
    x, d = rng.normal(size=(N, D)), np.eye(3)[rng.integers(3, size=N)][:, :C]
    kind = "logistic" if C == 1 else "softmax"
    wanted = list(itertools.islice(twin.train(params, x, d, lr=0.05, kind=kind), 4))
    run = jacobs1991.train_to_stop(params, x, d, 0.05, 0.0, 3, True)
    epochs, reached, error, last, history = run
    assert (epochs, reached) == (3, False)
    assert error == pytest.approx(wanted[3].squared_error, rel=1e-12)
    close = {"rtol": 1e-11, "atol": 1e-13}
    for name in params:
        np.testing.assert_allclose(last[name], wanted[3].params[name], **close)
        np.testing.assert_array_equal(history[name][3], last[name])
        for number in range(4):
            np.testing.assert_allclose(history[name][number], wanted[number].params[name], **close)


def test_a_naive_epoch():
    """Case by case and unit by unit: one update by −log Σ_e p_e exp(−½ (d − o_e)²)."""
    rng = np.random.default_rng(2)
    params = random_params(rng)
    x, d = rng.normal(size=(5, 2)), rng.integers(2, size=(5, 1)).astype(float)
    W, b, U, c = (params[name].copy() for name in ("W", "b", "U", "c"))
    ascent = {name: np.zeros_like(v) for name, v in params.items()}
    for n in range(5):
        o = [1 / (1 + np.exp(-(x[n] @ W[e, :, 0] + b[e, 0]))) for e in range(3)]
        p = np.exp([x[n] @ U[:, e] + c[e] for e in range(3)])
        p /= p.sum()
        h = [p[e] * np.exp(-0.5 * (d[n, 0] - o[e]) ** 2) for e in range(3)]
        for e in range(3):
            resp = h[e] / sum(h)
            slope = resp * (d[n, 0] - o[e]) * o[e] * (1 - o[e])
            ascent["W"][e, :, 0] += slope * x[n]
            ascent["b"][e, 0] += slope
            ascent["U"][:, e] += (resp - p[e]) * x[n]
            ascent["c"][e] += resp - p[e]
    _, _, _, last, _ = jacobs1991.train_to_stop(params, x, d, 0.05, 0.0, 1, False)
    for name, value in params.items():
        np.testing.assert_allclose(last[name], value + 0.05 * ascent[name], rtol=1e-12, atol=1e-14)


def test_a_run_ends_at_the_stop_rule():
    rng = np.random.default_rng(1)
    params = random_params(rng)
    x = rng.normal(size=(20, 2))
    d = (x[:, :1] > 0).astype(float)
    steps = itertools.islice(twin.train(params, x, d, lr=0.05), 200)
    errors = [step.squared_error for step in steps]
    stop = (errors[30] + errors[29]) / 2
    expected = next(i for i, error in enumerate(errors) if error <= stop)
    epochs, reached, error, _, _ = jacobs1991.train_to_stop(params, x, d, 0.05, stop, 500, False)
    assert (epochs, reached) == (expected, True) and 0 < expected < 200
    assert error == pytest.approx(errors[expected], rel=1e-9)


def test_the_loop_survives_large_logits():
    rng = np.random.default_rng(1)
    params = {name: 3000 * value for name, value in random_params(rng).items()}
    x, d = rng.normal(size=(9, 2)), rng.integers(2, size=(9, 1)).astype(float)
    _, _, error, last, _ = jacobs1991.train_to_stop(params, x, d, 0.05, 0.0, 2, False)
    *_, wanted = itertools.islice(twin.train(params, x, d, lr=0.05), 3)
    assert error == pytest.approx(wanted.squared_error, rel=1e-9)
    assert all(np.isfinite(v).all() for v in last.values())


def test_a_run_ends_when_its_error_is_nan():
    params = random_params(np.random.default_rng(1))
    params["W"][0, 0, 0] = np.nan
    data = np.ones((9, 2)), np.ones((9, 1))
    epochs, reached, error, _, _ = jacobs1991.train_to_stop(params, *data, 0.1, 0.08, 5, False)
    assert (epochs, reached) == (0, False) and np.isnan(error)
