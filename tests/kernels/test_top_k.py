"""The compiled top-k gate: against its NumPy twin and a naive loop, with ties and with logits that
overflow, and the same bits from any number of threads.
"""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.routing import top_k as twin
from tests.support.kernels import JIT, bits, close, dtypes, numba, threads_only

if numba:
    from moe_np.kernels import top_k


@dtypes
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(
    ("N", "E", "k"),
    [(0, 3, 2), (1, 1, 1), (9, 4, 2), (5, 6, 6), (30, 40, 3)] + [(5000, 8, 2)] * JIT,
)
def test_forward(N, E, k, renormalise, dtype):
    rng = np.random.default_rng(N)
    logits = rng.integers(-4, 5, (N, E)) if N == 30 else 3 * rng.normal(size=(N, E))  # 30: ties
    logits = logits.astype(dtype)
    gate = top_k.forward(logits, np.eye(E, dtype=dtype), k, renormalise)
    expected = top_k.Gate(*twin.forward_numpy(logits, np.eye(E, dtype=dtype), k, renormalise))
    assert np.array_equal(gate.logits, logits) and np.array_equal(expected.logits, logits)
    assert np.array_equal(gate.choice, expected.choice)
    assert np.array_equal(gate.demand, expected.demand)
    naive = [sorted(range(E), key=lambda e: (-row[e], e))[:k] for row in logits[:50]]
    assert gate.choice[:50].tolist() == naive
    close(gate.probs, expected.probs, dtype)
    close(gate.weight, expected.weight, dtype)


@pytest.mark.parametrize("E", [4, 20])
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_forward_where_the_product_overflows(E):
    """Logits of −inf, or NaN, which `route` then refuses: k different experts even so."""
    x, w = np.full((3, 1), 1e30, np.float32), np.full((1, E), -1e30, np.float32)
    w[0, 0] = 1
    assert top_k.forward(x, w, 3, True).choice.tolist() == [[0, 1, 2]] * 3
    w = np.array([[1e30], [-1e30]], np.float32).repeat(E, 1)
    choice = top_k.forward(np.full((3, 2), 1e30, np.float32), w, 3, True).choice
    assert all(len(set(row)) == 3 for row in choice.tolist())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_forward_returns_nothing_for_x_that_is_not_finite(value):
    x = np.ones((1500, 4))
    assert top_k.forward(x, np.eye(4), 2, True) is not None
    x[1200, 3] = value
    assert top_k.forward(x, np.eye(4), 2, True) is None


@dtypes
@pytest.mark.parametrize(
    ("N", "E", "k", "D"), [(0, 3, 2, 4), (1, 1, 1, 1), (9, 4, 2, 3)] + [(9000, 8, 2, 5)] * JIT
)
def test_backward(N, E, k, D, dtype):
    rng = np.random.default_rng(N)
    sizes = ((N, D), (D, E), (N, k), (N, k))
    x, w, dweight, weight = (rng.normal(size=size).astype(dtype) for size in sizes)
    choice = np.argsort(rng.random((N, E)), axis=1)[:, :k]
    dkept = numerics.softmax_backward(dweight, weight)
    dlogits = np.zeros((N, E), dtype)
    np.put_along_axis(dlogits, choice, dkept, axis=1)
    for dx, dw in (
        top_k.backward(dweight, weight, choice, x, w),
        top_k.linear_backward(dlogits, x, w),
    ):
        close(dx, dlogits @ w.T, dtype)
        close(dw, x.T @ dlogits, dtype, 30)
    if N == 9:
        naive = np.zeros((D, E))
        for n in range(N):
            for j in range(k):
                naive[:, choice[n, j]] += dkept[n, j] * x[n]
        close(dw, naive.astype(dtype), dtype)


@threads_only
def test_the_same_bits_from_any_number_of_threads(monkeypatch):
    rng = np.random.default_rng(0)
    sizes = ((9001, 8), (8, 16), (9001, 2), (9001, 16))
    x, w, dkept, dlogits = (rng.normal(size=size).astype(np.float32) for size in sizes)
    results = set()
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(top_k, "blas_threads", lambda n=threads: n)
        gate = top_k.forward(x, w, 2, True)
        backward = top_k.backward(dkept, gate.weight, gate.choice, x, w)
        linear = top_k.linear_backward(dlogits, x, w)
        results.add(bits((*gate, *backward, *linear)))
    assert len(results) == 1
