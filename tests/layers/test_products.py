"""The products of whole models, both kernels: against sums of single numbers, and the gradient."""

import numpy as np
import pytest

from moe_np.base import gradcheck, machine
from moe_np.layers import products


def test_it_equals_a_loop_over_numbers(backend):
    rng = np.random.default_rng(0)
    x, w, dy = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    y = [[sum(x[n, d] * w[d, k] for d in range(3)) for k in range(2)] for n in range(4)]
    dx = [[sum(dy[n, k] * w[d, k] for k in range(2)) for d in range(3)] for n in range(4)]
    dw = [[sum(x[n, d] * dy[n, k] for n in range(4)) for k in range(2)] for d in range(3)]
    np.testing.assert_allclose(products.forward(x, w), y)
    np.testing.assert_allclose(products.input_gradient(dy, w), dx)
    np.testing.assert_allclose(products.weight_gradient(x, dy), dw)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0, 3, 2), (300, 40, 30), (1000, 20, 50)])
def test_large_products(backend, shape, dtype):
    N, D, K = shape
    assert N == 0 or N * D * K >= machine.SMALL
    rng = np.random.default_rng(1)
    x, w, dy = (rng.normal(size=s).astype(dtype) for s in ((N, D), (D, K), (N, K)))
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-9}
    pairs = (
        (products.forward(x, w), x @ w),
        (products.input_gradient(dy, w), dy @ w.T),
        (products.weight_gradient(x, dy), x.T @ dy),
    )
    for ours, expected in pairs:
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, expected, **tolerance)


def test_gradient(backend):
    rng = np.random.default_rng(2)
    params, x = {"w": rng.normal(size=(3, 2))}, rng.normal(size=(5, 3))

    def forward(params, x):
        return products.forward(x, params["w"]), (x, params["w"])

    def backward(dy, cache):
        x, w = cache
        return products.input_gradient(dy, w), {"w": products.weight_gradient(x, dy)}

    assert max(gradcheck.pair_error(forward, backward, params, x, rng).values()) < 1e-9
