"""Collapse of the gate, and the router's gradient for k = 1 and k = 2."""

import copy

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.experiments.why_it_works import gate_collapse


@pytest.mark.parametrize("choice", gate_collapse.CHOICES)
def test_gradients_of_the_sparse_regression(choice):
    k, renormalise = gate_collapse.CHOICES[choice]
    rng = np.random.default_rng(5)
    x = rng.normal(size=(9, 3))
    d = rng.normal(size=(9, 1))
    router = {"w": rng.normal(size=(3, 4))}
    experts = {"w": rng.normal(size=(4, 3, 1)), "b": rng.normal(size=(4, 1))}
    _, drouter, dexperts = gate_collapse.k_gradients(router, experts, x, d, k, renormalise)
    if (k, renormalise) == (1, True):
        assert not drouter["w"].any()

    def loss(p):
        router = {"w": p["router"]}
        experts = {name: p[name] for name in ("w", "b")}
        return gate_collapse.k_gradients(router, experts, x, d, k, renormalise)[0]

    grads = {"router": drouter["w"], **dexperts}
    errors = gradient_error(loss, {"router": router["w"], **experts}, grads, rng, step=1e-5)
    assert max(errors.values()) < 1e-6, errors


def test_the_verdict_on_k_changes_with_the_numbers():
    cell = {"zero": 5, "n": 5, "better": 1, "error": 0.1}
    cell |= {"gradient": [0, 0], "largest": [0, 0], "bits": [1, 0]}
    summary = [{"choice": choice, **cell} for choice in gate_collapse.CHOICES]
    assert gate_collapse.k_verdict(summary)[0] == "partly"
    stuck = copy.deepcopy(summary)
    stuck[1]["better"] = 0
    assert gate_collapse.k_verdict(stuck)[0] == "yes"
    leaks = copy.deepcopy(summary)
    leaks[0]["zero"] = 4
    assert gate_collapse.k_verdict(leaks)[0] == "no"


def collapse_cells(gradients, escaped):
    cell = {"n": 3, "when": 7.0, "unused": 1, "unused moves": False}
    kinds = [("dense", "mixture"), ("sparse", "paper"), ("sparse", "code")]
    return [
        {**cell, "gate": gate, "kind": kind, "bias": bias, "gate gradient": [g, 0], "escaped": n}
        for gate, kind in kinds
        for bias, g, n in zip((0, 5), gradients, escaped, strict=True)
    ]


def test_the_verdict_on_collapse_changes_with_the_numbers():
    holds, words = gate_collapse.collapse_verdict(collapse_cells((1.0, 0.1), (3, 0)))
    assert holds == "no" and "10 times smaller at a bias of 5" in words
    assert words.endswith("What prevents collapse is that the gate starts undecided.")
    assert "a gradient of exactly 0; all runs get away up to a bias of 0, none at 5" in words
    holds, words = gate_collapse.collapse_verdict(collapse_cells((1.0, 0.1), (3, 3)))
    assert holds == "partly" and "up to a bias of 5 (in all runs, after 7 epochs" in words
    assert "none at any bias" in words and "undecided" not in words
    assert gate_collapse.collapse_verdict(collapse_cells((0.1, 1.0), (3, 3)))[0] == "yes"


@pytest.mark.slow
def test_a_small_bias_is_left_and_a_large_one_is_not():
    dense = {"gate": "dense", "kind": "mixture", "seed": 0, "epochs": 300}
    small, large = (gate_collapse.collapse_run({**dense, "bias": bias}) for bias in (5, 20))
    assert small["escaped"] < 50 and large["escaped"] is None
    assert large["gate gradient"] < 1e-5 * small["gate gradient"]
