"""The three polynomials for eˣ: precision, the ends of the range, and what makes them differ."""

import numpy as np
import pytest

from tests.support.kernels import JIT, dtypes, from_python, numba

if numba:
    from moe_np.kernels.machine import exp


def values_of(function, x):
    x = np.asarray(x)

    def loop(x, out):
        for i in range(len(x)):
            out[i] = function(x[i])

    out = np.empty_like(x)
    (numba.njit(loop) if JIT else loop)(x, out)
    return out


@dtypes
def test_exp(dtype):
    x = np.concatenate([np.linspace(-80, 80, 500), [0.0, -1e-9, -1e4]]).astype(dtype)
    e = values_of(exp.exp, x)
    assert e.dtype == dtype
    exact = np.exp(x[:-1].astype(np.float64))
    np.testing.assert_allclose(e[:-1], exact, rtol=5e-7 if dtype == np.float32 else 1e-15)
    assert 0 <= e[-1] < 1e-37


@pytest.mark.parametrize(
    ("name", "precision"), [("exp_negative", 2e-15), ("exp_negative_fused", 1.5e-15)]
)
def test_exp_of_negative_numbers(name, precision):
    x = -np.concatenate([[0.0], np.logspace(-8, 2.8, 400)])
    e = values_of(getattr(exp, name), x)
    np.testing.assert_allclose(e, np.exp(x), rtol=precision)
    assert 0 <= values_of(getattr(exp, name), [-1e9])[0] < 1e-300


def test_exp_negative_keeps_nan():
    assert np.isnan(values_of(exp.exp_negative, [np.nan])[0])


@pytest.mark.skipif(not JIT, reason="compiled code")
def test_exp_negative_is_the_same_as_in_plain_arithmetic():
    """Nothing is fused: Python's own arithmetic, which never fuses, gives the same bits."""
    x = -np.random.default_rng(0).exponential(20, 300)
    in_python = [exp.exp_negative.py_func(v) for v in x]
    assert np.array_equal(values_of(exp.exp_negative, x), in_python)


def test_horner():
    x = 0.3
    total = from_python(exp.horner)((1.0, 2.0, -3.0, 0.5), x)
    assert total == pytest.approx(1 + 2 * x - 3 * x**2 + 0.5 * x**3, rel=1e-15)
