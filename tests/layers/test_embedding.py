"""The token embedding: gradient, tokens that occur several times, bad token numbers."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.layers import embedding


def problem(shape=(2, 9), V=5, D=3, seed=0):
    rng = np.random.default_rng(seed)
    return embedding.init(rng, V, D), rng.integers(0, V, shape)


@pytest.mark.parametrize("shape", [(), (4,), (2, 9), (2, 3, 4), (0, 3)])
def test_equals_a_naive_loop(shape):
    params, ids = problem(shape)
    x, cache = embedding.forward(params, ids)
    dx = np.random.default_rng(1).normal(size=x.shape)
    dw = np.zeros_like(params["w"])
    for place in np.ndindex(*shape):
        assert np.array_equal(x[place], params["w"][ids[place]])
        dw[ids[place]] += dx[place]
    np.testing.assert_allclose(embedding.backward(dx, cache)["w"], dw, rtol=1e-12, atol=1e-15)


def test_gradient():
    params, ids = problem()

    def backward(dx, cache):
        return None, embedding.backward(dx, cache)

    rng = np.random.default_rng(0)
    errors = pair_error(embedding.forward, backward, params, ids, rng)
    assert errors["w"] < 1e-7


def test_errata_23_rows_of_a_token_that_occurs_twice_are_added():
    params, _ = problem()
    _, cache = embedding.forward(params, np.array([3, 1, 3]))
    dw = embedding.backward(np.array([[1.0, 0, 0], [0, 1, 0], [2, 0, 0]]), cache)["w"]
    assert dw.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [3, 0, 0], [0, 0, 0]]


def test_errata_23_the_gradient_of_a_tied_head_is_added_to_it():
    """x = w[ids] and logits = x wᵀ use w twice."""
    params, ids = problem((6,))

    def forward(p, ids):
        x, cache = embedding.forward(p, ids)
        return x @ p["w"].T, (x, cache, p["w"])

    def backward(dlogits, kept):
        x, cache, w = kept
        return None, {"w": embedding.backward(dlogits @ w, cache)["w"] + dlogits.T @ x}

    errors = pair_error(forward, backward, params, ids, np.random.default_rng(0))
    assert errors["w"] < 1e-7


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([0, 5], "ids: wanted token numbers from 0 to 4, got 5"),
        ([0, -1], "ids: wanted token numbers from 0 to 4, got -1"),
        ([0.5], "ids: wanted integer numbers"),
    ],
)
def test_bad_token_numbers(ids, words):
    params, _ = problem()
    with pytest.raises(InputError, match=words):
        embedding.forward(params, ids)


def test_float32_and_the_scale_of_initialisation():
    params = embedding.init(np.random.default_rng(0), 400, 50, scale=0.02, dtype=np.float32)
    assert abs(params["w"].std() / 0.02 - 1) < 0.02
    x, cache = embedding.forward(params, np.array([1, 1]))
    assert x.dtype == embedding.backward(x, cache)["w"].dtype == np.float32
    assert not np.shares_memory(x, params["w"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": -1.0}, "scale: wanted a finite number of at least 0, got -1.0"),
        ({"vocabulary": 0}, "vocabulary: wanted a whole number of at least 1, got 0"),
        ({"d_model": 2.5}, "d_model: wanted a whole number"),
        ({"rng": None}, "rng: wanted"),
        ({"dtype": int}, "dtype: wanted"),
    ],
)
def test_a_bad_initialisation_is_named(change, words):
    defaults = {"rng": np.random.default_rng(0), "vocabulary": 3, "d_model": 2}
    with pytest.raises(InputError, match=words):
        embedding.init(**{**defaults, **change})


@pytest.mark.parametrize("w", [np.ones(3), np.ones((2, 3, 4)), [[1.0, 2], [3]], "w"])
def test_a_bad_matrix_is_named(w):
    with pytest.raises(InputError, match=r"params\['w'\]: wanted"):
        embedding.forward({"w": w}, np.array([0, 1]))
