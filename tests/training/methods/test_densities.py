"""Densities of the target under each expert: values by hand, gradients."""

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.training.methods import densities


def check_gradient(forward, backward, o, y, rng):
    log_f, cache = forward(o, y)
    dlog_f = rng.normal(size=log_f.shape)

    def value(p):
        return (forward(p["o"], y)[0] * dlog_f).sum()

    assert gradient_error(value, {"o": o}, {"o": backward(dlog_f, cache)}, rng)["o"] < 1e-7


def test_gaussian():
    rng = np.random.default_rng(0)
    forward, backward = densities.gaussian(0.7)
    o, y = rng.normal(size=(6, 3, 2)), rng.normal(size=(6, 2))
    log_f, _ = forward(o, y)
    distance = ((y[2] - o[2, 1]) ** 2).sum()
    assert log_f[2, 1] == pytest.approx(
        -0.5 * distance / 0.49 - 2 * np.log(0.7 * np.sqrt(2 * np.pi))
    )
    check_gradient(forward, backward, o, y, rng)


def test_bernoulli():
    rng = np.random.default_rng(0)
    forward, backward = densities.bernoulli_forward, densities.bernoulli_backward
    o, y = rng.normal(size=(6, 3, 1)), rng.integers(2, size=(6, 1)).astype(float)
    log_f, _ = forward(o, y)
    np.testing.assert_allclose(np.exp(log_f) + np.exp(forward(o, 1 - y)[0]), 1)
    assert np.isfinite(forward(1e3 * o, y)[0]).all()
    check_gradient(forward, backward, o, y, rng)
