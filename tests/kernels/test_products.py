"""Products in shared tasks: against NumPy's, and the same bits from any number of threads."""

import numpy as np
import pytest

from tests.support.kernels import JIT, bits, close, dtypes, numba, threads_only

if numba:
    from moe_np.kernels import products


@dtypes
@pytest.mark.parametrize(("N", "D", "K"), [(0, 3, 2), (1, 1, 1), (5, 3, 2)] + [(900, 64, 70)] * JIT)
def test_products(N, D, K, dtype):
    rng = np.random.default_rng(0)
    x, w, dy = (rng.normal(size=s).astype(dtype) for s in ((N, D), (D, K), (N, K)))
    close(products.product(x, w, False), x @ w, dtype)
    close(products.product(dy, w, True), dy @ w.T, dtype)
    close(products.weight_gradient(x, dy), x.T @ dy, dtype, loose=5)


@threads_only
def test_the_bits_do_not_depend_on_the_threads(monkeypatch):
    rng = np.random.default_rng(0)
    x, w, dy = (rng.normal(size=s).astype(np.float32) for s in ((900, 64), (64, 70), (900, 70)))
    results = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(products, "blas_threads", lambda threads=threads: threads)
        arrays = (products.product(x, w, False), products.product(dy, w, True))
        results.add(bits((*arrays, products.weight_gradient(x, dy))))
    assert len(results) == 1
