"""The compiled recurrence of an LSTM: against its NumPy twin; the same bits from any threads."""

import numpy as np
import pytest

from moe_np.layers import lstm as twin
from tests.support.kernels import JIT, bits, close, dtypes, numba, threads_only

if numba:
    from moe_np.kernels import lstm


def problem(T, B, H, projection, dtype):
    rng = np.random.default_rng(0)
    params = twin.init(rng, 3, H, projection, dtype=dtype)
    P = projection or H
    z = (2 * rng.normal(size=(T, B, 4 * H))).astype(dtype)
    h = np.zeros((T + 1, B, P), dtype)
    c = np.zeros((T + 1, B, H), dtype)
    h[0], c[0] = rng.normal(size=(B, P)), rng.normal(size=(B, H))
    dh = rng.normal(size=h.shape).astype(dtype)
    dc = rng.normal(size=(B, H)).astype(dtype)
    return params, z, h, c, dh, dc


def run(module_forward, module_backward, problem):
    """All that one of the twins fills or returns."""
    params, *arrays = problem
    z, h, c, dh, dc = (a.copy() for a in arrays)
    tanh_c, m = module_forward(params, z, h, c)
    dz = module_backward(params, dh, dc, c, z, tanh_c)
    return z, h, c, tanh_c, np.array(m), dh, dc, dz


@dtypes
@pytest.mark.parametrize("projection", [None, 2])
@pytest.mark.parametrize(("T", "B", "H"), [(0, 2, 3), (1, 0, 3), (3, 1, 5)] + [(20, 50, 17)] * JIT)
def test_recurrence(T, B, H, projection, dtype):
    arrays = problem(T, B, H, projection, dtype)
    expected = run(twin.recurrence_numpy, twin.recurrence_backward_numpy, arrays)
    for a, b in zip(run(lstm.forward, lstm.backward, arrays), expected, strict=True):
        close(a, b, dtype, loose=10)


@dtypes
def test_large_numbers_saturate_the_gates(dtype):
    params, z, h, c, _, _ = problem(1, 2, 4, None, dtype)
    params = {name: np.zeros_like(p) for name, p in params.items()}
    z[0, 0], z[0, 1] = 1e4, -1e4
    tanh_c, m = lstm.forward(params, z, h, c)
    assert np.array_equal(z[0, 0], np.ones(16)) and np.isfinite(m).all()
    np.testing.assert_allclose(z[0, 1, :4], 0, atol=1e-30)
    np.testing.assert_allclose(z[0, 1, 8:12], -1)
    np.testing.assert_allclose(c[1, 0], c[0, 0] + 1, rtol=1e-6)
    np.testing.assert_allclose(tanh_c[0], np.tanh(c[1]), atol=1e-6)


@threads_only
def test_the_bits_do_not_depend_on_the_threads(monkeypatch):
    arrays = problem(30, 70, 40, 20, np.float32)
    results = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(lstm, "blas_threads", lambda threads=threads: threads)
        results.add(bits(run(lstm.forward, lstm.backward, arrays)))
    assert len(results) == 1
    assert lstm.LARGE < 2 * 30 * 70 * 160 * 20
