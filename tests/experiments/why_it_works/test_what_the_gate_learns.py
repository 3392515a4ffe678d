"""What the gate learns: the cells with clouds decide, those without are controls."""

import numpy as np

from moe_np.experiments.why_it_works import what_the_gate_learns


def verdict(gate, kmeans):
    """Of mean bits in the order of CELLS."""
    noise = 0.02 * np.random.default_rng(0).normal(size=10)
    cells = zip(what_the_gate_learns.CELLS, gate, kmeans, strict=True)
    specs, results = [], []
    for (clouds, rules), g, k in cells:
        for value in noise:
            specs.append({"clouds": clouds, "rules": rules})
            results.append({"gate": g + value, "k-means": k})
    summary = what_the_gate_learns.learns_summary(specs, results)
    return what_the_gate_learns.learns_verdict(summary)


def test_the_verdict_changes_with_the_numbers():
    holds, words = verdict((1.98, 1.44, 1.7, 0.9), (1.99, 1.99, 1.2, 1.2))
    assert holds == "holds under a condition" and "has a rule of its own" in words
    assert "the gate is ahead of k-means" in words
    holds, words = verdict((1.98, 1.98, 1.1, 0.9), (1.99, 1.99, 1.2, 1.2))
    assert holds == "holds" and "ahead" not in words
    assert verdict((1.0, 1.0, 1.1, 0.9), (1.99, 1.99, 1.2, 1.2))[0] == "not supported"


def test_nothing_is_told_where_the_control_fails():
    holds, words = verdict((1.98, 1.98, 1.7, 1.7), (1.99, 1.99, 1.2, 1.2))
    assert holds == "cannot be told" and "did not come out" in words
