"""The compiled RMSNorm: against its NumPy twin, and the same bits from any number of threads. The
naive loop is in tests/layers/test_norms.py, which runs with both.
"""

import numpy as np
import pytest

from moe_np.layers import norms as twin
from tests.support.kernels import JIT, bits, close, dtypes, numba, threads_only

if numba:
    from moe_np.kernels import norms


def problem(N, D, dtype):
    rng = np.random.default_rng(N)
    rows = [rng.normal(size=(N, D)).astype(dtype) for _ in range(4)]
    return (1 + 0.3 * rng.normal(size=D)).astype(dtype), *rows


@dtypes
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("N", "D"), [(1, 1), (5, 3), (130, 8)] + [(3000, 64)] * JIT)
def test_equals_its_twin(N, D, residual, dtype):
    g, x, branch, dtotal, dy = problem(N, D, dtype)
    total, y, r = norms.forward(g, x, branch if residual else None, 1e-5)
    expected_total = x + branch if residual else x
    expected, expected_r = twin.rms_forward_numpy(g, expected_total, 1e-5)
    assert np.array_equal(total, expected_total)
    close(y, expected, dtype)
    close(r, expected_r, dtype)
    dx, dg = norms.backward(dy, dtotal if residual else None, total, g, r)
    cache = twin.RmsCache(expected_total, g, expected_r)
    expected, expected_dg = twin.rms_backward_numpy(dy, cache)
    close(dx, dtotal + expected if residual else expected, dtype, 10)
    close(dg, expected_dg, dtype, 30)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_r(value):
    g, x, branch, *_ = problem(5, 3, np.float32)
    x[3, 1] = value
    r = norms.forward(g, x, branch, 1e-5)[2]
    assert not r[3] > 0 and (r[[0, 1, 2, 4]] > 0).all()


@threads_only
def test_the_same_bits_from_any_number_of_threads(monkeypatch):
    g, x, branch, dtotal, dy = problem(5001, 32, np.float32)
    results = set()
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(norms, "blas_threads", lambda n=threads: n)
        total, y, r = norms.forward(g, x, branch, 1e-5)
        results.add(bits((total, y, r, *norms.backward(dy, dtotal, total, g, r))))
    assert len(results) == 1
