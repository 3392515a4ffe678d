"""Attention of one position, both kernels: it is attention with kept keys, and a naive loop."""

import numpy as np
import pytest

from moe_np.layers import attention, attention_step, key_values, projections, rotary

HEADS, KV_HEADS, WIDTH, D, B = 6, 3, 4, 5, 2


def kept(T, seed=0):
    """Parameters, the positions x (B, T + 1, D), and kv with all but the last of them."""
    rng = np.random.default_rng(seed)
    params = projections.init(rng, D, heads=HEADS, kv_heads=KV_HEADS, d=WIDTH, biases=True)
    params = {name: p + 0.1 * rng.normal(size=p.shape) for name, p in params.items()}
    x = rng.normal(size=(B, T + 1, D))
    kv = key_values.empty(B, KV_HEADS, T + 3, WIDTH)
    turned = rotary.angles(np.arange(T), WIDTH)
    shape = {"heads": HEADS, "kv_heads": KV_HEADS, "causal": True}
    if T:
        attention.forward(params, x[:, :T], **shape, rotary=turned, kv=kv)
    return params, x, kv


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("window", "clip_qkv"), [(None, None), (1, None), (3, None), (3, 0.5)])
@pytest.mark.parametrize("T", [0, 1, 7])
def test_it_is_attention_with_kept_keys(backend, T, window, clip_qkv, padded):
    params, x, kv = kept(T)
    angles = rotary.angles(np.array([T]), WIDTH)
    valid = np.arange(T + 1) >= np.array([[0], [min(2, T)]]) if padded else None
    options = {"heads": HEADS, "window": window, "valid": valid, "eps": 1e-6}
    options["clip_qkv"] = clip_qkv
    out = attention_step.forward(params, x[:, T], kv, angles, **options)
    assert kv.length == T, "its length is raised after the last layer"
    expected, _ = attention.forward(
        params, x[:, T:], kv_heads=KV_HEADS, causal=True, rotary=angles, kv=kv, **options
    )
    np.testing.assert_allclose(out, expected[:, 0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_single_numbers(backend, dtype):
    from moe_np import kernels

    rng = np.random.default_rng(1)
    q = rng.normal(size=(2, 4, 3)).astype(dtype)
    keys, values = (rng.normal(size=(2, 2, 6, 3)).astype(dtype) for _ in "kv")
    valid = rng.random((2, 5)) < 0.7
    valid[:, 4] = True
    step = attention_step.attend_numpy
    if backend == "numba":
        step = kernels.attention_step.forward
    out = step(q, keys, values, slice(1, 5), valid, 0.5)
    for b in range(2):
        for h in range(4):
            at = [s for s in range(1, 5) if valid[b, s]]
            e = [np.exp(0.5 * float(q[b, h] @ keys[b, h // 2, s])) for s in at]
            expected = sum(w * values[b, h // 2, s] for w, s in zip(e, at, strict=True)) / sum(e)
            np.testing.assert_allclose(
                out[b, h], expected, rtol=2e-5 if dtype == np.float32 else 1e-12
            )
    assert out.dtype == dtype


def test_large_scores_stay_finite(backend):
    params, x, kv = kept(4)
    params["wq"] = params["wq"] * 1e8
    angles = rotary.angles(np.array([4]), WIDTH)
    out = attention_step.forward(
        params, x[:, 4], kv, angles, heads=HEADS, window=None, valid=None, eps=1e-6
    )
    assert np.isfinite(out).all()
