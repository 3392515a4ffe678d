"""Feed-forward experts, with ReLU and with GELU."""

import numpy as np
from scipy.integrate import quad

from moe_np.layers.experts import GELU, RELU
from tests.support.experts import Case, check_initialisation

H = 6


def relu_row(p, x):
    z = x @ p["w1"] + p["b1"]
    return np.where(z > 0, z, 0) @ p["w2"] + p["b2"]


def gelu_row(p, x):
    z = x @ p["w1"] + p["b1"]
    return (z * [normal_distribution(v) for v in z]) @ p["w2"] + p["b2"]


def normal_distribution(z):
    """Φ(z), by numerical integration of the density."""
    return quad(lambda t: np.exp(-t * t / 2) / np.sqrt(2 * np.pi), -12, z, epsabs=1e-14)[0]


CASES = {
    "relu": Case(RELU, (H, 3), relu_row, share=("w1", "b1"), kinks=True),
    "gelu": Case(GELU, (H, 3), gelu_row, share=("w2", "b2")),
}


def test_the_stated_scale_of_the_initialisation():
    check_initialisation(RELU, 400, 300)
