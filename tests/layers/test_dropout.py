"""Dropout, alone and inside experts (pitfalls 24 and 25)."""

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.layers import dropout, experts, sparse_layer
from moe_np.routing import top_k

KINDS = {"relu": experts.RELU, "gelu": experts.GELU, "swiglu": experts.SWIGLU}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_are_dropped_and_the_rest_is_scaled(dtype):
    x = np.ones((3, 50, 40), dtype)
    y, mask = dropout.forward(x, 0.25, np.random.default_rng(0))
    assert y.dtype == dtype and mask.dtype == bool
    assert np.array_equal(y, np.where(mask, dtype(1 / 0.75), 0))
    assert abs(1 - mask.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / mask.size)
    assert abs(y.mean() - 1) < 0.03


def test_without_a_generator_or_with_p_0_nothing_is_dropped():
    x = np.arange(6.0).reshape(2, 3)
    for p, rng in ((0.5, None), (0, np.random.default_rng(0))):
        y, mask = dropout.forward(x, p, rng)
        assert mask is None and np.array_equal(y, x)
        assert np.array_equal(dropout.backward(x, mask, p), x)


def test_gradient():
    x = np.random.default_rng(0).normal(size=(4, 5, 3))

    def forward(params, x):
        return dropout.forward(x, 0.4, np.random.default_rng(1))  # the same mask in each call

    def backward(dy, mask):
        return dropout.backward(dy, mask, 0.4), {}

    assert gradcheck.pair_error(forward, backward, {}, x, np.random.default_rng(2))["x"] < 1e-9


def test_bad_input():
    with pytest.raises(InputError, match="p: wanted a finite number of at least 0 and below 1"):
        dropout.forward(np.ones(3), 1, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"rng: wanted a numpy\.random\.Generator"):
        dropout.forward(np.ones(3), 0.5, 1)


# --- in experts -----------------------------------------------------------------------------------


def layer(kind, N=6, D=4, E=3, hidden=8):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, D))
    params = {name: rng.normal(size=p.shape) for name, p in kind.init(rng, D, E, hidden).items()}
    routing, _ = top_k.route(top_k.init(rng, D, E), x, k=2, renormalise=True)
    return x, params, routing


@kinds
def test_gradient_of_a_layer_with_dropout_in_its_experts(kind):
    x, params, routing = layer(kind)

    def forward(params, x):
        dropping = experts.with_dropout(kind, 0.4, np.random.default_rng(1))
        return sparse_layer.forward(params, x, routing, dropping)

    errors = gradcheck.pair_error(
        forward,
        lambda dout, cache: sparse_layer.backward(dout, cache)[:2],
        params,
        x,
        np.random.default_rng(2),
        step=1e-4,
    )
    assert max(errors.values()) < 1e-7


@kinds
def test_errata_33_the_mask_is_per_assignment_and_on_the_hidden_layer(kind):
    """Two experts of a token drop other units, and the cache has the mask."""
    x, params, routing = layer(kind, hidden=50)
    dropping = experts.with_dropout(kind, 0.5, np.random.default_rng(1))
    out, cache = sparse_layer.forward(params, x, routing, dropping)
    mask = cache.experts.mask
    assert mask.shape == (12, 50) and mask.dtype == bool
    first, second = (mask[cache.token == 0][i] for i in (0, 1))
    assert 10 < np.count_nonzero(first != second) < 40
    hidden, naive = kept_hidden(kind, params, cache), np.zeros_like(out)
    for a in range(12):
        m = np.searchsorted(cache.offsets, a, side="right") - 1
        row = (hidden[a] * mask[a] / 0.5) @ params["w2"][m]
        row = row + params["b2"][m] if "b2" in params else row
        naive[cache.token[a]] += cache.weight[a] * row
    np.testing.assert_allclose(out, naive, rtol=1e-12)


def kept_hidden(kind, params, cache):
    """The hidden layer of each assignment without dropout, after the activation."""
    rows = []
    for a, x in enumerate(cache.experts.rows):
        m = np.searchsorted(cache.offsets, a, side="right") - 1
        if kind is experts.SWIGLU:
            gate = x @ params["w1"][m]
            rows.append(gate / (1 + np.exp(-gate)) * (x @ params["w3"][m]))
        else:
            activation = cache.experts.activation
            act = experts.feed_forward.ACTIVATIONS[activation][0]
            rows.append(act(x @ params["w1"][m] + params["b1"][m]))
    return np.array(rows)


@kinds
def test_errata_33_dropout_in_experts_drops_no_expert(kind):
    """Pitfall 25: every assignment keeps its expert and its weight; some hidden units are 0."""
    x, params, routing = layer(kind, N=40, hidden=20)
    dropping = experts.with_dropout(kind, 0.9, np.random.default_rng(1))
    _, cache = sparse_layer.forward(params, x, routing, dropping)
    _, same = sparse_layer.forward(params, x, routing, kind)
    assert np.array_equal(cache.offsets, same.offsets) and len(cache.token) == 80
    assert np.array_equal(cache.weight, same.weight)
    kept = cache.experts.mask.sum(axis=1)
    assert 0 < kept.mean() < 4 and len(set(kept)) > 2


@kinds
def test_without_a_generator_the_experts_are_the_same_to_the_bit(kind, monkeypatch):
    x, params, routing = layer(kind)
    monkeypatch.setenv("MOE_NP_KERNELS", "numpy")
    expected, cache = sparse_layer.forward(params, x, routing, kind)
    out, dropping_cache = sparse_layer.forward(
        params, x, routing, experts.with_dropout(kind, 0.4, None)
    )
    assert np.array_equal(out, expected)
    dx, grads, dweight = sparse_layer.backward(out, cache)
    same = sparse_layer.backward(out, dropping_cache)
    assert np.array_equal(dx, same[0]) and np.array_equal(dweight, same[2])
    assert all(np.array_equal(grads[name], same[1][name]) for name in params)


def test_an_expert_without_a_hidden_layer_has_no_dropout():
    for kind in (experts.LINEAR, experts.CUBIC):
        with pytest.raises(InputError, match="kind: wanted a kind of expert with a hidden layer"):
            experts.with_dropout(kind, 0.4, None)


@pytest.mark.parametrize("p", [1, 1.5, -0.1])
def test_the_probability_of_an_expert_is_checked(p):
    with pytest.raises(InputError, match="p: wanted a finite number of at least 0 and below 1"):
        experts.with_dropout(experts.RELU, p, None)
