"""Nested parameters: paths, leaf-wise functions, and the way to a vector and back."""

import re

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.params import add, flatten, leaves, map_leaves, nest, unflatten


def nested(seed=0):
    """Two levels of dicts, a list, a scalar and an empty array."""
    rng = np.random.default_rng(seed)
    return {
        "blocks": [{"W": rng.normal(size=(2, 3))}, {"W": rng.normal(size=(3, 1))}],
        "gate": {"U": rng.normal(size=(2, 2)), "scale": np.array(1.5)},
        "unused": np.zeros((0, 4)),
    }


def test_paths_are_in_the_order_of_the_structure():
    params = nested()
    paths = ["blocks.0.W", "blocks.1.W", "gate.U", "gate.scale", "unused"]
    assert list(leaves(params)) == paths
    assert leaves(params)["blocks.1.W"] is params["blocks"][1]["W"]


def test_a_vector_and_back():
    params = nested()
    vector = flatten(params)
    assert vector.shape == (6 + 3 + 4 + 1,)
    np.testing.assert_array_equal(vector[:6], params["blocks"][0]["W"].ravel())
    back = unflatten(vector, params)
    assert list(leaves(back)) == list(leaves(params))
    for path, leaf in leaves(params).items():
        assert leaves(back)[path].shape == leaf.shape
        np.testing.assert_array_equal(leaves(back)[path], leaf)
    vector[0] = 7.0
    assert back["blocks"][0]["W"][0, 0] == 7.0, "the arrays are views of the vector"


def test_the_vector_has_the_order_that_is_asked_for():
    params = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
    turned = {"b": params["b"], "a": params["a"]}
    assert flatten(turned).tolist() == [3.0, 1.0, 2.0]
    assert flatten(turned, like=params).tolist() == [1.0, 2.0, 3.0]


def test_the_dtype_is_that_of_the_vector():
    params = {"a": np.ones(2, np.float32), "b": np.ones(1, np.float32)}
    assert flatten(params).dtype == np.float32
    assert unflatten(np.ones(3), params)["a"].dtype == np.float64


def test_no_leaves_are_an_empty_vector():
    assert flatten({}).shape == (0,)
    assert unflatten(np.zeros(0), {"blocks": []}) == {"blocks": []}


def test_a_function_of_every_leaf():
    a, b = nested(0), nested(1)
    both = leaves(map_leaves(lambda x, y: x - 2 * y, a, b))
    for path, leaf in both.items():
        np.testing.assert_array_equal(leaf, leaves(a)[path] - 2 * leaves(b)[path])
    turned = dict(reversed(b.items()))
    for path, leaf in leaves(add(a, turned)).items():
        np.testing.assert_array_equal(leaf, leaves(a)[path] + leaves(b)[path])
    assert isinstance(add(a, b)["blocks"], list)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a.b": np.ones(1)}, "params: wanted names without dots as keys, got 'a.b'"),
        ({"a": {1: np.ones(1)}}, "params: wanted names without dots as keys, got a.1"),
        ({"a": [None]}, "params['a.0']: wanted an array, a dict or a list, got NoneType"),
        (3.0, "params: wanted an array, a dict or a list, got float"),
    ],
)
def test_bad_leaves_are_named(params, message):
    with pytest.raises(InputError, match=re.escape(message)):
        leaves(params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": {"U": np.ones(1)}}, "params['gate']: wanted the structure of the first"),
        ({"blocks": []}, "params['blocks']: wanted the structure of the first (a list of 2)"),
        ({"blocks": {}}, "params['blocks']: wanted the structure of the first (a list of 2)"),
        ({"unused": [np.ones(1)]}, "params['unused']: wanted the structure of the first"),
    ],
)
def test_another_structure_is_named(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        add(nested(), {**nested(), **change})


def test_another_length_is_named():
    with pytest.raises(InputError, match=re.escape("vector: wanted shape (14,), got (13,)")):
        unflatten(np.zeros(13), nested())
    with pytest.raises(InputError, match="params: wanted the leaves"):
        flatten({"a": np.ones(1)}, like={"b": np.ones(1)})


def test_lists_are_told_from_dicts():
    arrays = {"layers.0.w": 1, "layers.1.w": 2, "norm.g": 3, "other.1.w": 4}
    tree = nest(arrays)
    assert tree == {"layers": [{"w": 1}, {"w": 2}], "norm": {"g": 3}, "other": {"1": {"w": 4}}}


def test_eleven_layers_stay_in_order():
    arrays = {f"layers.{n}.w": n for n in (10, 2, *range(2), *range(3, 10))}
    assert [layer["w"] for layer in nest(arrays)["layers"]] == list(range(11))


def test_nest_is_the_inverse_of_leaves():
    tree = {"embed": {"w": np.ones(2)}, "layers": [{"g": np.zeros(1)} for _ in range(12)]}
    again = nest(leaves(tree))
    assert list(leaves(again)) == list(leaves(tree))
    assert nest({}) == {}
