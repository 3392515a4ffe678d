"""The compiled cross-entropy: against its NumPy twin, with infinities and NaN, and the same bits
from any number of threads.
"""

import numpy as np
import pytest

from moe_np.layers import cross_entropy as twin
from tests.support.kernels import JIT, bits, close, dtypes, jit_only, numba, threads_only

if numba:
    from moe_np.kernels import cross_entropy

SHAPES = [(0, 3), (1, 1), (5, 64), (7, 150)] + [(1000, 300)] * JIT


def problem(N, V, dtype):
    rng = np.random.default_rng(N + V)
    logits = (4 * rng.normal(size=(N, V))).astype(dtype)
    targets = rng.integers(0, V, N)
    valid = rng.random(N) < 0.8
    targets[~valid] = -1
    return logits, targets, valid


@dtypes
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("N", "V"), SHAPES)
def test_forward_and_backward(N, V, smoothing, dtype):
    logits, targets, valid = problem(N, V, dtype)
    losses, lse = cross_entropy.forward(logits, targets, smoothing, valid)
    expected, expected_lse = twin.forward_numpy(logits, targets, None, smoothing, valid)
    close(losses, expected, dtype)
    close(lse, expected_lse, dtype)
    cache = twin.Cache(logits, targets, None, smoothing, valid, lse, 0.0, 0)
    dlogits = twin.backward_numpy(0.3, cache, np.empty_like(logits))
    out = np.full_like(logits, np.nan)
    assert cross_entropy.backward(0.3, logits, targets, smoothing, valid, lse, out) is out
    close(out, dlogits, dtype)
    in_place = logits.copy()
    cross_entropy.backward(0.3, in_place, targets, smoothing, valid, lse, in_place)
    assert np.array_equal(in_place, out)


@dtypes
@pytest.mark.parametrize("V", [5, 64, 130])
@pytest.mark.filterwarnings("ignore:(invalid|overflow|divide)")
def test_infinities_and_nan_keep_their_meaning(V, dtype):
    """Errata 20: −∞ is a class with exactly no probability; NaN and +∞ are not hidden."""
    valid = np.ones(1, bool)
    for place in (0, V - 1):
        logits = np.zeros((1, V), dtype)
        logits[0, place] = -np.inf
        targets = np.array([1])
        losses, lse = cross_entropy.forward(logits, targets, 0.0, valid)
        close(lse, np.log([V - 1]).astype(dtype), dtype)
        out = cross_entropy.backward(1.0, logits, targets, 0.0, valid, lse, np.empty_like(logits))
        assert out[0, place] == 0 and np.isfinite(losses).all()
        for value in (np.nan, np.inf):
            logits[0, place] = value
            losses, _ = cross_entropy.forward(logits, targets, 0.0, valid)
            assert not np.isfinite(losses[0])
    logits = np.full((1, V), -np.inf, dtype)
    assert not np.isfinite(cross_entropy.forward(logits, np.array([0]), 0.0, valid)[0][0])


@dtypes
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("N", "V"), SHAPES)
def test_head(N, V, tied, dtype):
    _, targets, valid = problem(N, V, dtype)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 6)).astype(dtype)
    w = rng.normal(size=(V, 6) if tied else (6, V)).astype(dtype)
    ours = cross_entropy.head_forward(x, w, tied, targets, 0.1, valid)
    for a, b in zip(ours, twin.head_forward_numpy(x, w, tied, targets, 0.1, valid), strict=True):
        close(a, b, dtype, loose=3)


@threads_only
@jit_only
def test_the_bits_do_not_depend_on_the_threads(monkeypatch):
    logits, targets, valid = problem(2000, 70, np.float32)
    x = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(8, 70)).astype(np.float32)
    results = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(cross_entropy, "blas_threads", lambda threads=threads: threads)
        losses, lse = cross_entropy.forward(logits, targets, 0.1, valid)
        out = np.empty_like(logits)
        cross_entropy.backward(0.3, logits, targets, 0.1, valid, lse, out)
        head = cross_entropy.head_forward(x, w, False, targets, 0.1, valid)
        results.add(bits((losses, lse, out, *head)))
    assert len(results) == 1
