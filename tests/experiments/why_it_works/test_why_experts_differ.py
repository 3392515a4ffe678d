"""What keeps experts apart: exact symmetry, growth rates, and how experts depend on each other."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import why_experts_differ
from moe_np.experiments.why_it_works.tasks import LEARNING_RATES


def test_identical_experts_stay_identical_to_the_last_bit():
    for error in LEARNING_RATES:
        cell = {"error": error, "seed": 3, "epochs": 60, "gate learns": True}
        equal = why_experts_differ.equal_run({**cell, "start": "equal"})
        assert equal["apart"] == [0.0] * 4 and equal["rate"] is None
        apart = why_experts_differ.equal_run({**cell, "start": "1e-8 apart"})
        assert 0 < apart["apart"][0] < 1e-7


def test_the_growth_rate_is_that_of_the_logarithm():
    epochs = why_experts_differ.EVERY * np.arange(100)
    growth_rate = why_experts_differ.growth_rate
    assert growth_rate(1e-9 * np.exp(0.01 * epochs)) == pytest.approx(0.01)
    assert growth_rate(1e-8 * np.exp(-0.002 * epochs)) == pytest.approx(-0.002)
    assert growth_rate(np.zeros(100)) is None


def test_dependence_by_hand():
    d = np.zeros((2, 1))
    p = np.full((2, 2), 0.5)
    o = np.array([[[1.0], [-1.0]], [[2.0], [-2.0]]])  # the error of one cancels that of the other
    coupled = why_experts_differ.dependence(o, p, d)
    assert coupled["blend"] == 0 and coupled["cancelled"] == 1 and coupled["correlation"] == -1
    assert coupled["alone"] == coupled["without"] == 2.5 and coupled["in use"] == 1
    alone = why_experts_differ.dependence(o, np.array([[1.0, 0.0], [0.0, 1.0]]), d)
    assert alone["cancelled"] == 0 and alone["blend"] == alone["alone"] == 2.5


@pytest.mark.slow
@pytest.mark.parametrize("error", ["competitive", "mixture"])
def test_a_tiny_difference_grows_while_the_gate_learns_and_shrinks_while_it_is_held(error):
    cell = {"start": "1e-8 apart", "seed": 0, "epochs": 1200, "error": error}
    learns, held = (
        why_experts_differ.equal_run({**cell, "gate learns": value}) for value in (True, False)
    )
    assert learns["rate"] > 0.005 and held["rate"] < -0.001
