"""What the kinds of experts have in common: blocks of rows, shared parameters, initialisation."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers.experts import RELU, expert


def test_only_experts_with_rows_have_a_block():
    blocks = list(expert.blocks(np.array([0, 2, 2, 5])))
    assert blocks == [(0, slice(0, 2)), (2, slice(2, 5))]


def test_a_shared_parameter_is_repeated_without_a_copy():
    offsets = np.array([0, 1, 2, 3])
    params = {"w": np.ones((1, 2, 4)), "b": np.ones((3, 4))}
    w = expert.per_expert(params, "w", offsets)
    assert w.shape == (3, 2, 4) and np.shares_memory(w, params["w"])
    assert expert.per_expert(params, "b", offsets) is not w


def test_gradients_of_shared_parameters_are_summed():
    params = {"w": np.ones((1, 2)), "b": np.ones((3, 2))}
    grads = expert.zero_gradients(params, np.array([0, 1, 2, 3]))
    assert {name: g.shape for name, g in grads.items()} == {"w": (3, 2), "b": (3, 2)}
    grads["w"] += [[1, 2], [3, 4], [5, 6]]
    summed = expert.sum_shared(grads, params)
    np.testing.assert_array_equal(summed["w"], [[9, 12]])
    assert summed["b"] is grads["b"]


def test_bad_sizes_and_unknown_parameters_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="n_experts: wanted a whole number of at least 1, got 0"):
        RELU.init(rng, 4, 0, 8)
    with pytest.raises(InputError, match="share: wanted one of w1, b1, w2, b2; got 'w3'"):
        RELU.init(rng, 4, 2, 8, share=("w3",))
