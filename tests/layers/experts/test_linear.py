"""Linear experts."""

from moe_np.layers.experts import LINEAR
from tests.support.experts import Case, check_initialisation


def one_row(p, x):
    return x @ p["w"] + p["b"]


CASES = {"linear": Case(LINEAR, (3,), one_row, share=("w",))}


def test_the_stated_scale_of_the_initialisation():
    check_initialisation(LINEAR, 300)
