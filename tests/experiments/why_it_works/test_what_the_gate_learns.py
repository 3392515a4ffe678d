"""What the gate learns: the cells with clouds decide, one without is a control."""

import numpy as np

from moe_np.experiments.why_it_works import what_the_gate_learns


def verdict(gate, kmeans):
    """Of mean bits in the order of CELLS."""
    noise = 0.02 * np.random.default_rng(0).normal(size=10)
    cells = zip(what_the_gate_learns.CELLS, gate, kmeans, strict=True)
    specs, results = [], []
    for (clouds, rule), g, k in cells:
        for value in noise:
            specs.append({"clouds": clouds, "rule": rule})
            results.append({"gate": g + value, "k-means": k})
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


def test_nothing_is_told_where_the_control_fails():
    for smooth in (1.7, 1.3):
        holds, words, _ = verdict((1.98, 1.98, 1.98, 1.7, 1.7, smooth), KMEANS)
        assert holds == "cannot be told" and words.startswith("A control did not come out")
