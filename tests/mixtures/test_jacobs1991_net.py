"""Nets with one hidden layer: the gradient of backpropagation, and the initialisation."""

import numpy as np
import pytest

from moe_np.base.gradcheck import pair_error
from moe_np.mixtures import jacobs1991_net

N, D, C, H = 9, 2, 2, 4


def random_net(rng):
    shapes = {"W": (D, H), "b": (H,), "V": (H, C), "c": (C,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", jacobs1991_net.OUTPUT_UNITS)
def test_gradient(kind):
    rng = np.random.default_rng(1)
    d = rng.uniform(size=(N, C))

    def forward(params, x):
        return jacobs1991_net.net_forward(params, x, d, kind)

    x = rng.normal(size=(N, D))
    errors = pair_error(forward, jacobs1991_net.net_backward, random_net(rng), x, rng)
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("kind", jacobs1991_net.OUTPUT_UNITS)
def test_the_prediction_is_the_output_of_the_forward_pass(kind):
    rng = np.random.default_rng(1)
    params, x = random_net(rng), rng.normal(size=(N, D))
    _, cache = jacobs1991_net.net_forward(params, x, np.zeros((N, C)), kind)
    np.testing.assert_array_equal(jacobs1991_net.net_predict(params, x, kind), cache.y)


def test_initialisation_is_in_range():
    net = jacobs1991_net.init_net(np.random.default_rng(3), 12, init_range=0.1)
    assert {name: v.shape for name, v in net.items()} == {
        "W": (2, 12),
        "b": (12,),
        "V": (12, 1),
        "c": (1,),
    }
    assert max(abs(v).max() for v in net.values()) <= 0.1 and all(v.all() for v in net.values())
