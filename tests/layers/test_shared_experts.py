"""Shared experts: the layer with their routing is a sum of dense layers."""

import numpy as np
import pytest

from moe_np.layers import shared_experts, sparse_layer
from tests.support.layers import setup

pytestmark = pytest.mark.usefixtures("backend")


def test_they_are_a_sum_of_dense_layers():
    expert, params, x, _ = setup("swiglu", n_experts=2)
    out, cache = sparse_layer.forward(params, x, shared_experts.routing(len(x), 2), expert)
    dx, grads, dweight = sparse_layer.backward(out, cache)
    all_rows = np.array([0, len(x)])
    dense = [
        expert.forward({name: p[m : m + 1] for name, p in params.items()}, x, all_rows)
        for m in range(2)
    ]
    np.testing.assert_allclose(out, dense[0][0] + dense[1][0], rtol=1e-12)
    back = [expert.backward(out, dense_cache) for _, dense_cache in dense]
    np.testing.assert_allclose(dx, back[0][0] + back[1][0], rtol=1e-11)
    np.testing.assert_allclose(grads["w2"][1], back[1][1]["w2"][0], rtol=1e-11)
    assert dweight.shape == (2 * len(x),)


def test_every_token_has_every_expert_with_weight_1():
    routing = shared_experts.routing(3, 2, np.float32)
    assert routing.token.tolist() == [0, 0, 1, 1, 2, 2]
    assert routing.expert.tolist() == [0, 1, 0, 1, 0, 1]
    assert routing.weight.dtype == routing.probs.dtype == np.float32
    assert (routing.weight == 1).all() and routing.demand.all() and routing.logits is None
