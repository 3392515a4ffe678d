"""Layers of units on all cases: against NumPy, with an order of sums that is written down."""

import numpy as np
import pytest

from moe_np.base import numerics
from tests.support.kernels import from_python, numba

if numba:
    from moe_np.kernels.machine import units


@pytest.mark.seconds
def test_affine():
    rng = np.random.default_rng(0)
    w, x, out = rng.normal(size=5), rng.normal(size=(5, 16)), np.empty(16)
    from_python(units.affine)(w, x, out)
    np.testing.assert_allclose(out, w @ x, rtol=1e-13, atol=1e-14)


@pytest.mark.seconds
def test_dots_adds_eight_parts_and_then_in_order():
    rng = np.random.default_rng(0)
    a, x, out = rng.normal(size=40), rng.normal(size=(3, 40)), np.empty(3)
    from_python(units.dots)(a, x, np.empty(5), out)
    for j in range(3):
        p = (a * x[j]).reshape(8, 5)
        parts = ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]))
        total = 0.0
        for part in parts:
            total += part
        assert out[j] == total


@pytest.mark.seconds
@pytest.mark.parametrize("rows", [1, 3])
def test_outputs(rows):
    rng = np.random.default_rng(0)
    s = 3 * rng.normal(size=(rows, 16))
    s[0, :2] = 700, -700
    o = s.copy()
    do = rng.normal(size=s.shape)
    ds = do.copy()
    room = np.empty(16)
    from_python(units.outputs)(o, room)
    expected = numerics.sigmoid(s) if rows == 1 else numerics.softmax(s.T).T
    np.testing.assert_allclose(o, expected, rtol=1e-13, atol=1e-300)
    from_python(units.outputs_backward)(ds, o, room)
    slope = do * o * (1 - o) if rows == 1 else numerics.softmax_backward(do.T, o.T).T
    np.testing.assert_allclose(ds, slope, rtol=1e-12, atol=1e-15)
