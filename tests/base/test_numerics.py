"""Softmax and its relatives against SciPy's, also at the ends of the range; their gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from moe_np.base import gradcheck, numerics

logits = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-1e4, 1e4)
)


@pytest.mark.seconds
@given(logits)
def test_softmax_family_equals_scipy(x):
    for axis in (-1, 0):
        expected = special.softmax(x, axis=axis)
        np.testing.assert_allclose(numerics.softmax(x, axis=axis), expected, 1e-12, 1e-300)
    expected = special.log_softmax(x, axis=-1)
    np.testing.assert_allclose(numerics.log_softmax(x), expected, rtol=1e-12, atol=1e-12)
    expected = special.logsumexp(x, axis=-1)
    np.testing.assert_allclose(numerics.logsumexp(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.seconds
@given(logits)
def test_sigmoid_and_softplus_equal_scipy(x):
    np.testing.assert_allclose(numerics.sigmoid(x), special.expit(x), rtol=1e-10, atol=2e-16)
    expected = -special.log_expit(-x)
    np.testing.assert_allclose(numerics.softplus(x), expected, rtol=1e-13, atol=1e-300)


def test_masked_choices_get_exactly_zero():
    x = np.array([[0.5, -np.inf, 1.5], [-np.inf, -np.inf, 2.0]])
    p = numerics.softmax(x)
    assert p[0, 1] == 0 and p[1, 0] == 0 and p[1, 2] == 1
    assert np.array_equal(numerics.logsumexp(np.full((2, 3), -np.inf)), [-np.inf, -np.inf])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_all_choices_are_masked_softmax_and_its_gradient_are_zero(dtype):
    x = np.array([[0.5, -np.inf, 1.5], [-np.inf] * 3, [1.0, 2.0, 3.0]], dtype)
    with np.errstate(all="raise"):
        p = numerics.softmax(x)
        dx = numerics.softmax_backward(np.ones_like(x), p)
        assert (numerics.softmax(x[1]) == 0).all() and (
            numerics.softmax(x.T, axis=0)[:, 1] == 0
        ).all()
    assert p.dtype == dtype and (p[1] == 0).all() and (dx[1] == 0).all()
    for row in (0, 2):
        e = np.exp(x[row] - x[row].max())
        assert np.array_equal(p[row], e / e.sum()), "the same bits as without the masked row"


def test_logits_that_are_not_numbers_stay_visible():
    for bad in (np.nan, np.inf):
        with np.errstate(invalid="ignore"):
            assert np.isnan(numerics.softmax(np.array([[bad, 0.0], [1.0, 2.0]]))[0]).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_the_input_and_nothing_is_changed(dtype):
    x = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    x.flags.writeable = False
    names = ("softmax", "log_softmax", "logsumexp", "sigmoid", "softplus", "entropy")
    for name in names:
        assert getattr(numerics, name)(np.abs(x)).dtype == dtype, name


def test_entropy_of_known_distributions():
    p = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(numerics.entropy(p), [np.log(4), 0, np.log(2)], atol=1e-15)


PAIRS = {
    "softmax": (numerics.softmax, lambda dy, x: numerics.softmax_backward(dy, numerics.softmax(x))),
    "sigmoid": (numerics.sigmoid, lambda dy, x: numerics.sigmoid_backward(dy, numerics.sigmoid(x))),
    "softplus": (numerics.softplus, numerics.softplus_backward),
}


@pytest.mark.parametrize("name", PAIRS)
def test_gradients(name):
    forward, backward = PAIRS[name]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 5))

    def pair_forward(params, x):
        return forward(x), x

    def pair_backward(dout, cache):
        return backward(dout, cache), {}

    assert gradcheck.pair_error(pair_forward, pair_backward, {}, x, rng)["x"] < 1e-9
