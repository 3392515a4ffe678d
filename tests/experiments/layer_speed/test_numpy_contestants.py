"""Contestants in NumPy: they compute the same, and the dense network has as many operations."""

import numpy as np
import pytest

from moe_np.experiments.layer_speed import numpy_contestants
from moe_np.experiments.layer_speed.problem import EXPERTS, Shape, problem
from moe_np.layers.sparse_layer import by_expert
from moe_np.routing import top_k

kinds = pytest.mark.parametrize("kind", EXPERTS)


@kinds
def test_layer_and_mask_loop_compute_the_same(kind):
    p = problem(kind, Shape(50, 6, 5), np.float64)
    out, dx, grads = numpy_contestants.moe_layer(p)(True)
    out_loop, dx_loop, grads_loop = numpy_contestants.numpy_mask_loop(p)(True)
    np.testing.assert_allclose(out, out_loop, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dx, dx_loop, rtol=1e-9, atol=1e-12)
    assert set(grads) == set(grads_loop)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads_loop[name], rtol=1e-8, atol=1e-11)
    np.testing.assert_array_equal(numpy_contestants.numpy_mask_loop(p)(False), out_loop)


@kinds
def test_the_dense_net_has_the_operations_of_the_active_experts_and_a_right_gradient(kind):
    p = problem(kind, Shape(9, 4, 3))
    out, dx, grads = numpy_contestants.dense_numpy(p)(True)
    assert grads["w1"].shape == (4, 2 * 16) and out.shape == dx.shape == (9, 4)
    params = EXPERTS[kind].init(np.random.default_rng(0), 4, 1, 32, dtype=np.float32)
    y, cache = EXPERTS[kind].forward(params, p.x, np.array([0, 9]))
    dx_expert, grads_expert = EXPERTS[kind].backward(p.dout, cache)
    np.testing.assert_allclose(out, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx, dx_expert, rtol=1e-4, atol=1e-5)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads_expert[name][0], rtol=1e-4, atol=1e-5)


@pytest.mark.seconds
@kinds
def test_the_products_alone_are_those_of_the_layer(kind):
    pytest.importorskip("numba")
    p = problem(kind, Shape(40, 6, 5), np.float64)
    y, drows, dw = numpy_contestants.products_alone(p)(True)
    routing, _ = top_k.route(p.router, p.x, k=2, renormalise=True)
    order, offsets = by_expert(routing.expert, 5)
    rows = p.x[routing.token[order]]
    for m in range(5):
        block = slice(offsets[m], offsets[m + 1])
        w1, w2 = p.params["w1"][m], p.params["w2"][m]
        w3 = p.params.get("w3", p.params["w1"])[m]
        dh = y[block] @ w2.T
        dx = dh @ w1.T + (dh @ w3.T if kind == "swiglu" else 0)
        np.testing.assert_allclose(y[block], rows[block] @ w1 @ w2)
        np.testing.assert_allclose(drows[block], dx)
        np.testing.assert_allclose(dw["w1"][m], rows[block].T @ dh)
        np.testing.assert_allclose(dw["w2"][m], (rows[block] @ w1).T @ y[block])
