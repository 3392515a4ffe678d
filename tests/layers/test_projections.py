"""Projections of attention: initialisation, biases and norms in their order, bad parameters."""

import re

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import norms, projections


def test_initialisation():
    rng = np.random.default_rng(0)
    params = projections.init(rng, 64, heads=8, kv_heads=2, biases=True, norm="head")
    shapes = {name: p.shape for name, p in params.items() if not isinstance(p, dict)}
    assert shapes == {
        **{"wq": (64, 64), "wk": (64, 16), "wv": (64, 16), "wo": (64, 64)},
        **{"bq": (64,), "bk": (16,), "bv": (16,)},
    }
    assert params["q_norm"]["g"].tolist() == params["k_norm"]["g"].tolist() == [1] * 8
    assert abs(params["wq"].std() * 8 - 1) < 0.05
    whole = projections.init(rng, 64, heads=8, kv_heads=2, d=4, norm="whole", dtype=np.float32)
    assert whole["q_norm"]["g"].shape == (32,) and whole["k_norm"]["g"].shape == (8,)
    assert whole["wo"].shape == (32, 64) and whole["wo"].dtype == np.float32


@pytest.mark.parametrize("norm", ["whole", "head"])
def test_a_norm_of_the_whole_projection_or_of_each_head(norm):
    """OLMoE norms all features of the queries together, Qwen3 those of a head; after the bias."""
    rng = np.random.default_rng(0)
    params = projections.init(rng, 5, heads=3, kv_heads=1, d=4, biases=True, norm=norm)
    params["bq"] = rng.normal(size=12)
    params["q_norm"] = {"g": 1 + 0.3 * rng.normal(size=params["q_norm"]["g"].shape)}
    x = rng.normal(size=(2, 3, 5))
    q, _ = projections.project(params, x, "q", 3, 1e-6)
    y = x @ params["wq"] + params["bq"]
    if norm == "head":
        y = y.reshape(2, 3, 3, 4)
    expected, _ = norms.rms_forward(params["q_norm"], y, eps=1e-6)
    np.testing.assert_allclose(q, expected.reshape(2, 3, 3, 4), rtol=1e-12)


def test_clipping_comes_last_and_the_boundary_passes():
    """The order of OLMoE: after the norm. PyTorch's clamp has the gradient 1 at ±c, too."""
    rng = np.random.default_rng(0)
    params = projections.init(rng, 4, heads=2, kv_heads=1, d=2, norm="whole")
    params["q_norm"]["g"][:] = [3.0, 1.0, 1.0, 1.0]
    x = rng.normal(size=(1, 3, 4))
    normed, _ = projections.project(params, x, "q", 2, 1e-6)
    c = abs(normed.flat[5])  # exactly on the boundary
    q, cache = projections.project(params, x, "q", 2, 1e-6, c)
    np.testing.assert_array_equal(q, normed.clip(-c, c))
    inside = np.abs(normed) <= c
    assert inside.flat[5] and 0 < inside.sum() < inside.size
    dq = rng.normal(size=q.shape)
    _, free = projections.project(params, x, "q", 2, 1e-6)
    expected = projections.project_backward(params, np.where(inside, dq, 0), free)
    dx, grads = projections.project_backward(params, dq, cache)
    np.testing.assert_array_equal(dx, expected[0])
    np.testing.assert_array_equal(grads["q_norm"]["g"], expected[1]["q_norm"]["g"])

    narrow = {"wv": params["wv"].astype(np.float32)}
    v, _ = projections.project(narrow, x.astype(np.float32), "v", 1, 1e-6, 0.1)
    assert v.dtype == np.float32 and np.abs(v).max() == np.float32(0.1)
    with (
        np.errstate(over="ignore"),
        pytest.raises(InputError, match="x: wanted numbers for which the output is finite"),
    ):
        projections.project({"wv": params["wv"] * 1e308}, 1e10 * x, "v", 1, 1e-6, 0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wq": np.ones((5, 10))}, r"params\['wq'\]: wanted 3 heads side by side, got 10 columns"),
        ({"wk": np.ones((5, 5))}, r"params\['wk'\]: wanted shape \(5, 4\), got \(5, 5\)"),
        ({"wk": 3.0}, r"params\['wk'\]: wanted shape \(D, Hk d\), got \(\)"),
        ({"wo": np.ones((12, 6))}, r"params\['wo'\]: wanted shape \(12, 5\), got \(12, 6\)"),
        ({"bv": np.ones(5)}, r"params\['bv'\]: wanted shape \(4,\), got \(5,\)"),
        ({"q_norm": {"g": np.ones(5)}}, r"params\['q_norm'\]\['g'\]: wanted 12 or 4 gains, got 5"),
        ({"b1": np.ones(5)}, "params: wanted no other keys, got b1"),
        ({"wo": np.ones((12, 5), np.float32)}, r"params\['wo'\]: wanted float64"),
    ],
)
def test_bad_parameters(change, words):
    params = projections.init(np.random.default_rng(0), 5, heads=3, kv_heads=1, d=4)
    x = np.ones((2, 3, 5))
    with pytest.raises(InputError, match=words):
        projections.check({**params, **change}, x, x, 3, 1)


def test_bad_heads_and_inputs():
    rng = np.random.default_rng(0)
    params = projections.init(rng, 5, heads=3, kv_heads=1, d=4)
    x = np.ones((2, 3, 5))
    with pytest.raises(InputError, match="heads: wanted a multiple of 2 key heads, got 3"):
        projections.init(rng, 6, heads=3, kv_heads=2)
    with pytest.raises(InputError, match="d_model: wanted a multiple of 4 heads, got 6"):
        projections.init(rng, 6, heads=4, kv_heads=2)
    with pytest.raises(InputError, match=r"memory: wanted shape \(2, S, 5\), got \(1, 3, 5\)"):
        projections.check(params, x, x[:1], 3, 1)
    for wrong, words in [(x[0], "got (3, 5)"), (x * np.nan, "finite numbers")]:
        with pytest.raises(InputError, match=rf"^x: wanted .*{re.escape(words)}"):
            projections.check(params, wrong, x, 3, 1)
    with pytest.raises(InputError, match="x: wanted float64, as wq, got float32"):
        projections.check(params, x.astype(np.float32), x, 3, 1)
