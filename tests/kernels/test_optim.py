"""The compiled update of AdamW: against its NumPy twin, and the same bits from any threads."""

import numpy as np
import pytest

from moe_np.base import optim as twin
from tests.support.kernels import JIT, bits, close, dtypes, numba, threads_only

if numba:
    from moe_np.kernels import optim


def leaf(size, dtype, seed=0):
    rng = np.random.default_rng(seed)
    p, g, m = (rng.normal(size=size).astype(dtype) for _ in range(3))
    v = np.square(rng.normal(size=size)).astype(dtype)
    g.flags.writeable = False
    return p, g, m, v


FACTORS = twin.AdamWFactors(
    decay=0.99, beta1=0.9, beta2=0.95, step=0.02, root=1.3, eps=1e-8, scale=0.7
)


@dtypes
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3)] + [(300, 401)] * JIT)
def test_update(shape, dtype):
    p, g, m, v = leaf(shape, dtype)
    p, m, v = (np.array(a) for a in (p, m, v))
    expected = [a.copy() for a in (p, m, v)]
    twin.adamw_update(expected[0], np.asarray(g), *expected[1:], FACTORS)
    optim.update(p, np.asarray(g), m, v, FACTORS)
    for a, b in zip((p, m, v), expected, strict=True):
        close(a, b, dtype)


@dtypes
def test_it_takes_the_place_of_the_twin(dtype):
    rng = np.random.default_rng(1)
    params = {"a": {"w": rng.normal(size=(5, 4)).astype(dtype)}, "b": rng.normal(size=3)}
    params["b"] = params["b"].astype(dtype)
    results = []
    for update in (None, optim.update):
        p, state = params, None
        for seed in range(3):
            noise = np.random.default_rng(seed)
            grads = {
                "a": {"w": noise.normal(size=(5, 4)).astype(dtype)},
                "b": noise.normal(size=3).astype(dtype),
            }
            p, state = twin.adamw(p, grads, state, lr=0.1, weight_decay=0.2, update=update)
        results.append(p)
    close(results[1]["a"]["w"], results[0]["a"]["w"], dtype, loose=10)
    close(results[1]["b"], results[0]["b"], dtype, loose=10)


@pytest.mark.filterwarnings("ignore:invalid")
def test_a_gradient_that_is_not_finite_stays_visible():
    p, g, m, v = leaf(5, np.float32)
    g = np.array([np.nan, np.inf, 1, 0, 0], np.float32)
    optim.update(p, g, m, v, FACTORS)
    assert np.isnan(p[:2]).all() and np.isfinite(p[2:]).all()


@threads_only
def test_the_bits_do_not_depend_on_the_threads(monkeypatch):
    results = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(optim, "blas_threads", lambda threads=threads: threads)
        p, g, m, v = leaf(200_000, np.float32)
        optim.update(p, g, m, v, FACTORS)
        results.add(bits((p, m, v)))
    assert len(results) == 1
