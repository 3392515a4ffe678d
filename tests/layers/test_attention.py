"""Attention: gradients, a naive loop, masks, grouped queries, the key-value cache."""

import numpy as np
import pytest

from moe_np.base import params as nested
from moe_np.base.gradcheck import pair_error
from moe_np.layers import attention, rotary

B, T, D, HQ, HK, WIDTH = 2, 7, 12, 6, 3, 4


def problem(seed=0, norm="none", biases=True, **sizes):
    rng = np.random.default_rng(seed)
    params = attention.init(rng, D, heads=HQ, kv_heads=HK, d=WIDTH, biases=biases, norm=norm)
    params = nested.map_leaves(lambda a: a + 0.3 * rng.normal(size=a.shape), params)
    return params, rng.normal(size=(B, T, D))


def options(**changes):
    angles = rotary.angles(np.arange(T), WIDTH)
    return {"heads": HQ, "kv_heads": HK, "causal": True, "rotary": angles, **changes}


def pair(params, chosen):
    """The pair with the parameters by leaf name, as the gradient check wants it."""

    def forward(flat, x):
        vector = np.concatenate([flat[path].ravel() for path in nested.leaves(params)])
        return attention.forward(nested.unflatten(vector, params), x, **chosen)

    def backward(dout, cache):
        dx, grads = attention.backward(dout, cache)
        return dx, nested.leaves(grads)

    return forward, backward


@pytest.mark.parametrize("norm", ["none", "whole", "head"])
@pytest.mark.parametrize("changes", [{}, {"window": 3}, {"causal": False}, {"rotary": None}])
def test_gradient(norm, changes):
    params, x = problem(norm=norm)
    forward, backward = pair(params, options(**changes))
    rng = np.random.default_rng(1)
    errors = pair_error(forward, backward, nested.leaves(params), x, rng)
    if "rotary" in changes and norm == "none":
        errors.pop("bk")  # a constant that is added to all scores of a row has no effect
    assert max(errors.values()) < 1e-7, errors
