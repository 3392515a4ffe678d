"""A gate with a bias towards one expert that is held while the experts learn, and then let go."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import gate_collapse


def cells(ratios, escaped):
    """A summary with these mean logs of the gradient's ratio at biases 2 and 10, eq. 3."""
    noise = 0.02 * np.random.default_rng(0).normal(size=8)
    shared = {"gate": "dense", "kind": "mixture", "n": 8}
    values = zip((0, 2, 10), (0.0, *ratios), (8, *escaped), strict=True)
    return [
        {**shared, "bias": bias, "log gradients": (ratio + noise * bias).tolist(), "escaped": count}
        for bias, ratio, count in values
    ]


def test_the_verdict_on_collapse_changes_with_the_numbers():
    holds, words = gate_collapse.collapse_verdict(cells((1.5, -1.0), (8, 0)))
    assert holds == "holds under a condition"
    assert "it holds for eq. 3 at 2; it is not supported for eq. 3 at 10." in words
    assert "is large, eq. 3 at 2 8 of 8; where the gradient is not shown to be large" in words
    assert gate_collapse.collapse_verdict(cells((1.5, 1.5), (8, 8)))[0] == "holds"
    holds, words = gate_collapse.collapse_verdict(cells((-1.0, -1.0), (8, 0)))
    assert holds == "not supported" and "undecided" not in words


def test_the_cases_of_the_criterion_are_those_of_the_runs():
    specs = gate_collapse.collapse_specs(gate_collapse.Config(), False)
    cases = {(spec["kind"], spec["bias"]) for spec in specs if spec["bias"]}
    assert len(cases) == gate_collapse.CASES
    assert gate_collapse.CRITERION.level == pytest.approx(1 - 0.05 / len(cases))
    assert max(bias for _, bias in cases) == 10, "at 20 no run can get away"


def test_a_held_gate_keeps_its_bias_and_experts_learn_under_it():
    spec = {"gate": "dense", "kind": "mixture", "seed": 0, "epochs": 1}
    first, later = (
        gate_collapse.collapse_run({**spec, "bias": 5, "held": held}) for held in (0, 200)
    )
    assert first["share"] == later["share"] == pytest.approx(np.exp(5) / (np.exp(5) + 3))
    assert first["first gradient"] != later["first gradient"]
    sparse = {"gate": "sparse", "kind": "paper", "seed": 0, "n": 200, "epochs": 1, "bias": 10}
    shares = [gate_collapse.collapse_run({**sparse, "held": held})["share"] for held in (0, 5)]
    assert min(shares) > 0.95


@pytest.mark.slow
def test_a_small_bias_is_left_and_the_gradient_there_is_large():
    dense = {"gate": "dense", "kind": "mixture", "seed": 0, "epochs": 300, "held": 500}
    none, small, large = (gate_collapse.collapse_run({**dense, "bias": b}) for b in (0, 5, 10))
    assert small["escaped"] < 50 and large["escaped"] is None
    assert small["gate gradient"] > 10 * none["gate gradient"] > 10 * large["gate gradient"]
