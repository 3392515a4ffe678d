"""The check itself: right gradients pass at 1e-9; each usual mistake is caught, with its size."""

import doctest
import functools

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError


def dense_forward(params, x):
    z = x @ params["w"] + params["b"]
    return np.tanh(z), (x, params["w"], np.tanh(z))


def dense_backward(dout, cache, scale=1.0, forget_tanh=False):
    x, w, y = cache
    dz = dout * (1 if forget_tanh else 1 - y * y) * scale
    return dz @ w.T, {"w": x.T @ dz, "b": dz.sum(axis=0)}


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    return {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}, rng.normal(size=(7, 3)), rng


def test_a_right_pair_passes(problem):
    params, x, rng = problem
    errors = gradcheck.pair_error(dense_forward, dense_backward, params, x, rng)
    assert set(errors) == {"x", "w", "b"} and max(errors.values()) < 1e-9


def test_errata_16_a_gradient_n_times_too_large_is_caught(problem):
    params, x, rng = problem
    backward = functools.partial(dense_backward, scale=7)
    errors = gradcheck.pair_error(dense_forward, backward, params, x, rng)
    np.testing.assert_allclose(list(errors.values()), 1 - 1 / 7, atol=1e-9)


def test_a_forgotten_factor_is_caught(problem):
    params, x, rng = problem
    backward = functools.partial(dense_backward, forget_tanh=True)
    errors = gradcheck.pair_error(dense_forward, backward, params, x, rng)
    assert min(errors.values()) > 1e-2


def test_one_wrong_component_among_ten_thousand_is_caught():
    rng = np.random.default_rng(0)
    p = {"w": rng.normal(size=10_000)}
    g = {"w": 2 * p["w"]}
    before = gradcheck.gradient_error(lambda p: (p["w"] ** 2).sum(), p, g, rng)["w"]
    g["w"][1234] += 1.0
    after = gradcheck.gradient_error(lambda p: (p["w"] ** 2).sum(), p, g, rng)["w"]
    assert before < 1e-9 < 1e-6 < after


def test_a_gradient_hidden_by_the_rounding_of_the_loss_passes():
    rng = np.random.default_rng(0)
    p = {"w": rng.normal(size=5)}
    g = {"w": 1e-8 * np.cos(p["w"])}

    def loss(p):
        return 1e3 + 1e-8 * np.sin(p["w"]).sum()

    assert gradcheck.gradient_error(loss, p, g, rng)["w"] < 1e-7
    million_times = {"w": 1e6 * g["w"]}
    assert gradcheck.gradient_error(loss, p, million_times, rng)["w"] > 1e-3, "this one shows"


def test_zero_gradients_and_empty_arrays_are_fine():
    rng = np.random.default_rng(0)
    p = {"unused": rng.normal(size=3), "empty": np.zeros((0, 3))}
    g = {"unused": np.zeros(3), "empty": np.zeros((0, 3))}
    assert gradcheck.gradient_error(lambda p: 1.0, p, g, rng) == {"unused": 0.0, "empty": 0.0}


@pytest.mark.parametrize(
    ("params", "grads", "words"),
    [
        ({"w": np.ones(3)}, {"v": np.ones(3)}, "grads: wanted the keys"),
        ({"w": np.ones(3)}, {"w": np.ones(4)}, "wanted shape (3,), got (4,)"),
        ({"w": np.ones(3, np.float32)}, {"w": np.ones(3)}, "wanted float64, got float32"),
    ],
)
def test_bad_input_is_named(params, grads, words):
    with pytest.raises(InputError) as error:
        gradcheck.gradient_error(lambda p: 0.0, params, grads, np.random.default_rng(0))
    assert words in str(error.value)


def test_the_docstring_is_true():
    assert doctest.testmod(gradcheck).failed == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named(bad):
    """A NaN in the gradient has no random direction: the search for one never ended."""
    rng = np.random.default_rng(0)
    params, grads = {"w": np.ones(3)}, {"w": 2 * np.ones(3)}
    wrong = np.array([1.0, bad, 1.0])

    def square(p):
        return (p["w"] ** 2).sum()

    with pytest.raises(InputError, match=rf"grads\['w'\]: wanted finite numbers, got {bad}"):
        gradcheck.gradient_error(square, params, {"w": wrong}, rng)
    with pytest.raises(InputError, match=rf"params\['w'\]: wanted finite numbers, got {bad}"):
        gradcheck.gradient_error(square, {"w": wrong}, grads, rng)
    with pytest.raises(InputError, match=rf"loss\(params\): wanted a finite number, got {bad}"):
        gradcheck.gradient_error(lambda p: bad, params, grads, rng)


def test_gradients_of_every_size_have_a_direction():
    rng = np.random.default_rng(0)
    for size in (1e200, 1e-200, 5e-324):
        v = gradcheck.random_direction(np.full(3, size), rng)
        assert np.linalg.norm(v) == pytest.approx(1)
    assert (
        gradcheck.gradient_error(
            lambda p: (p["w"] ** 2).sum(), {"w": [1.0, 2.0]}, {"w": [2, 4]}, rng
        )["w"]
        < 1e-9
    )
