"""What keeps experts apart: exact symmetry and growth rates."""

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
    shrinking = 1e-8 * np.exp(-0.002 * epochs)
    assert growth_rate(np.append(shrinking, [0, 0])) == pytest.approx(-0.002)


def equal_cells(rates):
    """A summary with these growth rates for (error, gate learns), and bit-equal experts."""
    noise = 1e-5 * np.random.default_rng(0).normal(size=8)
    shared = {"n": 8, "never apart": 8, "first": 0.1, "last": 0.1}
    return [
        {**shared, "error": error, "start": start, "gate learns": learns, "rates": values}
        for (error, learns), rate in rates.items()
        for start, values in (("equal", []), ("1e-8 apart", (rate + noise).tolist()))
    ]


def test_the_verdict_on_equal_experts_is_not_that_of_arithmetic():
    rates = {(error, learns): -0.001 for error in LEARNING_RATES for learns in (True, False)}
    assert why_experts_differ.equal_verdict(equal_cells(rates))[0] == "not supported"
    rates["cooperative", False] = 0.006
    holds, words = why_experts_differ.equal_verdict(equal_cells(rates))
    assert holds == "holds under a condition"
    assert words.endswith("So bad performance alone does part experts, for eq. 1, gate held.")
    holds, words = why_experts_differ.equal_verdict(equal_cells(dict.fromkeys(rates, 0.006)))
    assert holds == "holds" and "as arithmetic demands" in words
    doubled = equal_cells(dict.fromkeys(rates, 0.0003))
    assert why_experts_differ.equal_verdict(doubled)[0] == "not supported", "2e-8 is not apart"


@pytest.mark.slow
@pytest.mark.parametrize("error", ["competitive", "mixture"])
def test_a_tiny_difference_grows_while_the_gate_learns_and_shrinks_while_it_is_held(error):
    cell = {"start": "1e-8 apart", "seed": 0, "epochs": 1200, "error": error}
    learns, held = (
        why_experts_differ.equal_run({**cell, "gate learns": value}) for value in (True, False)
    )
    assert learns["rate"] > 0.005 and held["rate"] < -0.001
