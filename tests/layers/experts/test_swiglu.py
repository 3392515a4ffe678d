"""SwiGLU experts."""

import numpy as np

from moe_np.layers.experts import SWIGLU
from tests.support.experts import Case, check_initialisation


def one_row(p, x):
    a = x @ p["w1"]
    return (a / (1 + np.exp(-a)) * (x @ p["w3"])) @ p["w2"]


CASES = {"swiglu": Case(SWIGLU, (6, 3), one_row, share=("w1", "w3"))}


def test_the_stated_scale_of_the_initialisation():
    check_initialisation(SWIGLU, 400, 300)
