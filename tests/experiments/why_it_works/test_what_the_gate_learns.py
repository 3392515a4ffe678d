"""What the gate learns: the cells with clouds decide, one without is a control."""

import numpy as np

from moe_np.experiments.why_it_works import what_the_gate_learns


def verdict(gate, kmeans, drawn=0.0, again=1.99):
    """Of mean bits in the order of CELLS, and of both controls."""
    noise = 0.02 * np.random.default_rng(0).normal(size=10)
    cells = zip(what_the_gate_learns.CELLS, gate, kmeans, strict=True)
    specs, results = [], []
    for (clouds, rule), g, k in cells:
        for value in noise:
            specs.append({"clouds": clouds, "rule": rule})
            result = {"gate": g + value, "k-means": k, "a choice at random": drawn + value**2}
            results.append({**result, "k-means from another start": again - value**2})
    summary = what_the_gate_learns.learns_summary(specs, results)
    return (
        *what_the_gate_learns.learns_verdict(summary),
        what_the_gate_learns.learns_sensitivity(summary),
    )


KMEANS = (1.99, 1.99, 1.99, 1.2, 1.2, 1.2)


def test_the_verdict_changes_with_the_numbers():
    holds, words, sensitivity = verdict((1.98, 1.6, 1.44, 1.7, 1.2, 0.9), KMEANS)
    assert holds == "holds under a condition"
    assert "not supported for clouds, a rule for each region that no expert has and" in words
    assert "In one cloud, a straight rule for each region, the gate knows more" in words
    assert "with 0.8, holds under a condition and with 0.95, holds under a" in sensitivity
    holds, words, sensitivity = verdict((1.98, 1.85, 1.85, 1.1, 1.1, 0.9), KMEANS)
    assert holds == "holds" and "knows more" not in words
    assert "with 0.8, holds and with 0.95, holds under a condition" in sensitivity
    assert verdict((1.0, 1.0, 1.0, 1.1, 1.1, 0.9), KMEANS)[0] == "not supported"


def test_nothing_is_told_where_a_control_in_place_of_the_gate_fails():
    gate = (1.98, 1.6, 1.44, 1.7, 1.2, 0.9)
    for controls in ({"drawn": 1.99}, {"again": 1.0}):
        holds, words, sensitivity = verdict(gate, KMEANS, **controls)
        assert holds == "cannot be told" and "clouds, a straight rule for each region, " in words
        assert "with 0.8, cannot be told" in sensitivity


def test_a_run_has_the_controls():
    spec = {"clouds": True, "rule": "straight", "seed": 0, "n": 200, "restarts": 1}
    bits = what_the_gate_learns.learns_run(spec)
    assert bits["a choice at random"] < 0.1 < 1.5 < bits["k-means from another start"]
    assert set(bits) == {"gate", "k-means", *what_the_gate_learns.CONTROLS}


def test_nothing_is_told_where_the_control_fails():
    for smooth in (1.7, 1.3):
        holds, words, _ = verdict((1.98, 1.98, 1.98, 1.7, 1.7, smooth), KMEANS)
        assert holds == "cannot be told" and words.startswith("A control did not come out")
