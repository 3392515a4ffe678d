"""A gate with a bias towards one expert that is held while the experts learn, and then let go."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import biased_gate, gate_collapse
from moe_np.experiments.why_it_works.questions import Config


def cells(ratios, escaped, undecided=0.0, end=-3.0):
    """A summary with these mean logs of the gradient at biases 2 and 10, eq. 3, over the largest
    without a bias, and these of that run's end.
    """
    noise = 0.02 * np.random.default_rng(0).normal(size=8)
    shared = {"gate": "dense", "kind": "mixture", "n": 8}
    values = zip((0, 2, 10), (0.0, *ratios), (8, *escaped), strict=True)
    summary = [
        {**shared, "bias": bias, "log gradients": (ratio + noise * bias).tolist(), "escaped": count}
        for bias, ratio, count in values
    ]
    summary[0] |= {"log undecided": (undecided + noise).tolist(), "log end": (end + noise).tolist()}
    return summary


def test_the_verdict_on_collapse_changes_with_the_numbers():
    holds, words = gate_collapse.collapse_verdict(cells((0.0, -3.0), (8, 0)))
    assert holds == "holds under a condition"
    assert "it holds for eq. 3 at 2; it is not supported for eq. 3 at 10." in words
    assert "is large, eq. 3 at 2 8 of 8; where the gradient is not shown to be large" in words
    assert "to get away" not in words
    assert gate_collapse.collapse_verdict(cells((0.0, 0.0), (8, 8)))[0] == "holds"
    holds, words = gate_collapse.collapse_verdict(cells((-3.0, -3.0), (8, 0)))
    assert holds == "not supported" and "undecided" not in words
    assert "So no large gradient is needed to get away in eq. 3 at 2." in words


def test_nothing_is_told_of_collapse_where_a_control_fails():
    for undecided, end in ((-3.0, -3.0), (0.0, 0.0), (0.0, -1.0)):
        holds, words = gate_collapse.collapse_verdict(cells((0.0, 0.0), (8, 8), undecided, end))
        assert holds == "cannot be told" and words.startswith("A control did not come out")


def test_nothing_is_told_of_a_kind_whose_control_fails():
    """Of the others it is: every kind has controls of its own."""
    other = [{**cell, "kind": "code"} for cell in cells((-3.0, -3.0), (0, 0), undecided=-3.0)]
    holds, words = gate_collapse.collapse_verdict([*cells((0.0, -3.0), (8, 0)), *other])
    assert holds == "holds under a condition"
    assert "must hold: sparse, code, gate at the end made undecided" in words
    assert "it cannot be told for sparse, code at 2 and sparse, code at 10." in words
    alone = gate_collapse.collapse_verdict([*cells((0.0, 0.0), (8, 8)), *other])
    assert alone[0] == "holds under a condition", "nothing is told of the other kind"


def test_the_biases_are_those_of_which_a_dense_run_can_get_away():
    specs = biased_gate.collapse_specs(Config(), False)
    assert max(spec["bias"] for spec in specs) == 10, "at 20 no run can get away"


def test_a_held_gate_keeps_its_bias_and_experts_learn_under_it():
    spec = {"gate": "dense", "kind": "mixture", "seed": 0, "epochs": 1}
    first, later = (
        biased_gate.collapse_run({**spec, "bias": 5, "held": held}) for held in (0, 200)
    )
    assert first["share"] == later["share"] == pytest.approx(np.exp(5) / (np.exp(5) + 3))
    assert first["first gradient"] != later["first gradient"]
    sparse = {"gate": "sparse", "kind": "paper", "seed": 0, "n": 200, "epochs": 1, "bias": 10}
    shares = [biased_gate.collapse_run({**sparse, "held": held})["share"] for held in (0, 5)]
    assert min(shares) > 0.95


@pytest.mark.slow
def test_a_small_bias_is_left_and_the_gradient_there_is_larger():
    dense = {"gate": "dense", "kind": "mixture", "seed": 0, "epochs": 300, "held": 500}
    small, large = (biased_gate.collapse_run({**dense, "bias": bias}) for bias in (5, 10))
    usual = biased_gate.collapse_run({**dense, "epochs": 2500, "bias": 0})
    assert small["escaped"] < 50 and large["escaped"] is None
    assert small["gate gradient"] > 10 * large["gate gradient"]
    assert usual["gate gradient"] > usual["undecided"] > 0.5 * usual["gate gradient"]
    assert usual["end"] < 0.01 * usual["gate gradient"]
