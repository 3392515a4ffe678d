"""The router's gradient for k = 1 and k = 2, and what follows from the errors."""

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.experiments.why_it_works import one_expert_or_two


@pytest.mark.parametrize("choice", one_expert_or_two.CHOICES)
def test_gradients_of_the_sparse_regression(choice):
    k, renormalise = one_expert_or_two.CHOICES[choice]
    rng = np.random.default_rng(5)
    x = rng.normal(size=(9, 3))
    d = rng.normal(size=(9, 1))
    router = {"w": rng.normal(size=(3, 4))}
    experts = {"w": rng.normal(size=(4, 3, 1)), "b": rng.normal(size=(4, 1))}
    _, drouter, dexperts = one_expert_or_two.k_gradients(router, experts, x, d, k, renormalise)
    if (k, renormalise) == (1, True):
        assert not drouter["w"].any()

    def loss(p):
        router = {"w": p["router"]}
        experts = {name: p[name] for name in ("w", "b")}
        return one_expert_or_two.k_gradients(router, experts, x, d, k, renormalise)[0]

    grads = {"router": drouter["w"], **dexperts}
    errors = gradient_error(loss, {"router": router["w"], **experts}, grads, rng, step=1e-5)
    assert max(errors.values()) < 1e-6, errors


def verdict(errors, zero=8):
    """Of mean log errors in the order of CHOICES."""
    noise = 0.02 * np.random.default_rng(0).normal(size=(len(errors), 8))
    specs, results = [], []
    for choice, log_error, values in zip(one_expert_or_two.CHOICES, errors, noise, strict=True):
        for i, value in enumerate(values):
            largest = 0.0 if choice == one_expert_or_two.STUCK and i < zero else 1.0
            specs.append({"choice": choice})
            error = float(np.exp(log_error + value))
            results.append({"gradient": 1.0, "largest": largest, "error": error, "bits": 1.0})
    return one_expert_or_two.k_verdict(one_expert_or_two.k_summary(specs, results))


def test_the_verdict_on_k_changes_with_the_numbers():
    holds, words = verdict((0.0, -2.0, -2.0, -2.0))
    assert holds == "holds under a condition" and "enough to learn" in words
    assert "exactly 0 in 8 of 8 runs, which is arithmetic" in words
    holds, words = verdict((0.0, 0.0, -2.0, -2.0))
    assert holds == "holds" and "did not learn" in words
    holds, words = verdict((-2.0, -2.0, -2.0, -2.0))
    assert holds == "cannot be told" and words.startswith("A control did not come out")


def test_one_expert_is_compared_with_two_as_well():
    noise = np.zeros(3).tolist()
    cells = [{"choice": c, "log errors": noise, "n": 3} for c in one_expert_or_two.CHOICES]
    decisions = one_expert_or_two.k_decisions(cells)
    assert [d["case"] for d in decisions] == list(one_expert_or_two.RIVALS)
    assert {d["estimate"] for d in decisions} == {0.0}
