"""ReLU, GELU and SwiGLU on blocks of rows: against NumPy and against one number at a time."""

import numpy as np
import pytest

from moe_np.layers.experts import feed_forward
from tests.support.kernels import close, dtypes, from_python, numba

if numba:
    from moe_np.kernels.machine import activations


def values(dtype, rows=7, columns=19):
    rng = np.random.default_rng(0)
    z = 3 * rng.normal(size=(rows, columns))
    z[0, :6] = [0, -0.0, 30, -30, 1e-8, -9]
    dh = rng.normal(size=z.shape)
    b = rng.normal(size=columns)
    return z.astype(dtype), dh.astype(dtype), b.astype(dtype)


@pytest.mark.seconds
@dtypes
@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_activation(kind, dtype):
    z, dh, b = values(dtype)
    act, act_backward = feed_forward.ACTIVATIONS[kind]
    kept = z.copy()  # what the forward pass makes of z
    h_forward = np.full_like(z, 7)
    h_backward = np.full_like(z, 7)
    dz = dh.copy()
    db = np.empty_like(b)
    if kind == "relu":
        from_python(activations.relu_forward)(2, 6, kept, b)
        h = kept[2:6]
        from_python(activations.relu_backward)(2, 6, dz, kept, db)
    else:
        from_python(activations.gelu_forward)(2, 6, kept, b, h_forward)
        h = h_forward[:4]
        from_python(activations.gelu_backward)(2, 6, dz, kept, h_backward, db)
        close(h_backward[:4], h, dtype)
        assert (h_forward[4:] == 7).all() and (h_backward[4:] == 7).all()
    close(h, act(z[2:6] + b), dtype)
    assert np.array_equal(kept[:2], z[:2]) and np.array_equal(kept[6:], z[6:])
    close(h[1], np.array([act(v[None])[0] for v in z[3] + b]), dtype)
    expected = act_backward(dh[:4], z[2:6] + b)
    close(dz[:4], expected, dtype)
    close(db, expected.sum(axis=0), dtype)
    assert np.array_equal(dz[4:], dh[4:])


@pytest.mark.seconds
@dtypes
def test_swiglu(dtype):
    a, dh, _ = values(dtype)
    b = np.roll(dh, 1, axis=0)
    h = np.empty_like(a)
    h_backward = np.empty_like(a)
    da = dh.copy()
    db = np.empty_like(a)
    from_python(activations.swiglu_forward)(0, 7, a, b, h)
    from_python(activations.swiglu_backward)(0, 7, da, a, b, h_backward, db)
    close(h_backward, h, dtype)
    wide = a.astype(np.float64)
    s = 1 / (1 + np.exp(-wide))
    close(h, (wide * s * b).astype(dtype), dtype)
    close(da, (dh * b * s * (1 + wide * (1 - s))).astype(dtype), dtype)
    close(db, (dh * wide * s).astype(dtype), dtype)
