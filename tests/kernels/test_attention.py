"""The compiled loops of attention: against their NumPy twin, and the same bits from any number of
threads. The naive loop and the masks are in tests/layers/test_attention.py, which runs with both.
"""

import numpy as np
import pytest

from moe_np.layers import attention as twin
from moe_np.layers import rotary
from tests.support.kernels import JIT, bits, close, dtypes, numba, threads_only

if numba:
    from moe_np.kernels import attention

FAR = 10**6


def problem(B, T, S, heads, d, dtype, **changes):
    """q, k, v, dO and the pattern; Hq, Hk = heads."""
    rng = np.random.default_rng(T)
    shapes = [(B, T, heads[0], d), (B, S, heads[1], d), (B, S, heads[1], d), (B, T, heads[0], d)]
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    pattern = twin.Pattern(FAR, 0, S - T, None, d**-0.5, None, None, None)
    return (*arrays, pattern._replace(**changes))


def cache_of(q, k, v, out, log_sum, pattern):
    return twin.Cache({}, (), q, k, v, out, log_sum, pattern, False)


def compare(q, k, v, dout, pattern, dtype):
    out, log_sum = attention.forward(q, k, v, pattern)
    expected, expected_sum = twin.attend_numpy(q, k, v, pattern)
    close(out, expected, dtype, 10)
    nothing = expected_sum == -np.inf
    assert np.array_equal(log_sum == -np.inf, nothing)
    close(np.where(nothing, 0, log_sum), np.where(nothing, 0, expected_sum), dtype, 10)
    got = attention.backward(dout, cache_of(q, k, v, out, log_sum, pattern))
    twins = twin.attend_backward_numpy(dout, cache_of(q, k, v, expected, expected_sum, pattern))
    for a, b in zip(got, twins, strict=True):
        if b is None:
            assert a is None
        else:
            close(a, b, dtype, 50)
    return (out, log_sum, *(a for a in got if a is not None))


@dtypes
@pytest.mark.parametrize("heads", [(1, 1), (6, 3), (3, 1), (4, 4)])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (5, 9), (9, 9)] + [(150, 150)] * JIT)
def test_equals_its_twin(T, S, heads, dtype):
    angles = rotary.angles(np.arange(S), 6, dtype=dtype)
    queries = rotary.Rotary(angles.cos[S - T :], angles.sin[S - T :])
    turned = {"rotary": queries, "key_rotary": angles}
    compare(*problem(2, T, S, heads, 6, dtype, **turned), dtype)


@dtypes
@pytest.mark.parametrize("T", [7] + [100] * JIT)
@pytest.mark.parametrize("window", [(FAR, FAR), (2, 0), (3, 2), (0, 0)])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_masks_and_bias(T, window, padded, with_bias, dtype):
    rng = np.random.default_rng(0)
    valid = rng.random((3, T)) < 0.6
    valid[1] = False
    changes = {
        "before": window[0],
        "after": window[1],
        "valid": valid if padded else None,
        "bias": rng.normal(size=(4, T, T)).astype(dtype) if with_bias else None,
        "scale": 1.0,
    }
    compare(*problem(3, T, T, (4, 2), 5, dtype, **changes), dtype)


@dtypes
def test_more_queries_than_keys(dtype):
    """Cross attention to a short memory, and queries that lie before all keys."""
    compare(*problem(2, 9, 4, (4, 2), 4, dtype, after=FAR, offset=0), dtype)
    compare(*problem(2, 9, 4, (4, 2), 4, dtype, offset=-5), dtype)
    compare(*problem(2, 9, 4, (4, 2), 4, dtype, offset=20, before=3), dtype)


def test_arrays_that_are_not_contiguous():
    """Columns of a joined projection, and the keys of a cache with room for more positions."""
    q, k, v, dout, pattern = problem(2, 5, 5, (4, 2), 6, np.float64)
    joined = np.concatenate([a.reshape(2, 5, -1) for a in (q, k, v)], axis=2)
    parts = np.split(joined, [24, 36], axis=2)
    views = [a.reshape(2, 5, -1, 6) for a in parts]
    assert not any(a.flags.c_contiguous for a in views)
    kept = np.zeros((2, 2, 9, 6))
    kept[:, :, :5] = k.transpose(0, 2, 1, 3)
    expected = compare(q, k, v, dout, pattern, np.float64)
    for keys in (views[1], kept[:, :, :5].transpose(0, 2, 1, 3)):
        got = compare(views[0], keys, views[2], dout, pattern, np.float64)
        assert bits(got) == bits(expected)


@dtypes
def test_a_hidden_key_has_a_weight_of_exactly_0(dtype):
    """Also where its score is far above the others, and where those underflow beside it."""
    q, k, v, dout, pattern = problem(1, 4, 4, (2, 1), 4, dtype)
    k[:, 3] *= 1e4
    v[:, 3] = 1e30
    out, _ = attention.forward(q, k, v, pattern)
    v[:, 3] = 0
    expected, log_sum = attention.forward(q, k, v, pattern)
    assert np.array_equal(out[:, :3], expected[:, :3])
    cache = cache_of(q, k, v, expected, log_sum, pattern)
    dout[:, 3] = 0
    _, dk, dv, _ = attention.backward(dout, cache)
    assert (dk[:, 3] == 0).all() and (dv[:, 3] == 0).all()


@threads_only
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_same_bits_from_any_number_of_threads(with_bias, monkeypatch):
    bias = np.random.default_rng(0).normal(size=(6, 80, 80)).astype(np.float32)
    q, k, v, dout, pattern = problem(
        3, 80, 80, (6, 3), 16, np.float32, bias=bias if with_bias else None
    )
    results = set()
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(attention, "blas_threads", lambda n=threads: n)
        out, log_sum = attention.forward(q, k, v, pattern)
        gradients = attention.backward(dout, cache_of(q, k, v, out, log_sum, pattern))
        results.add(bits((out, log_sum, *(a for a in gradients if a is not None))))
    assert len(results) == 1
