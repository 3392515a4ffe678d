"""Feed-forward experts with a leaky ReLU."""

import numpy as np

from moe_np.layers.experts import LEAKY_RELU
from tests.support.experts import Case


def one_row(p, x):
    z = x @ p["w1"] + p["b1"]
    return np.where(z > 0, z, z / 100) @ p["w2"] + p["b2"]


CASES = {"leaky_relu": Case(LEAKY_RELU, (6, 3), one_row, share=("w1", "b2"), kinks=True)}
