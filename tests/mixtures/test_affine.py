"""The affine map of all experts: its value, its gradient, and its parameters in one array."""

import numpy as np

from moe_np.mixtures.affine import affine, affine_backward, pack, unpack
from moe_np.mixtures.least_squares import make_design
from tests.support.mixtures import random_params


def test_affine_is_about_the_origin_and_its_gradient_too():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 1, (7, 2))
    params = random_params(rng, "labels")
    wanted = np.einsum("nd,edc->ecn", x, params["W"]) + params["b"][:, :, None]
    np.testing.assert_allclose(affine(params, make_design(x)), wanted)
    dout = rng.normal(size=wanted.shape)
    grads = affine_backward(dout, make_design(x))
    np.testing.assert_allclose(grads["W"], np.einsum("ecn,nd->edc", dout, x))
    np.testing.assert_allclose(grads["b"], dout.sum(axis=2))


def test_packing_and_back():
    params = random_params(np.random.default_rng(0), "labels")
    back = unpack(pack(params))
    assert np.array_equal(back["W"], params["W"]) and np.array_equal(back["b"], params["b"])
    assert pack(None) is None
