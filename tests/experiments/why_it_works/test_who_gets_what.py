"""Who takes what: information, and which source of chance explains it."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import who_gets_what


def test_information_by_hand():
    label = np.repeat([0, 1, 2, 3], 5)
    assert who_gets_what.information(label[::-1].copy(), label) == pytest.approx(2)
    assert who_gets_what.information(label // 2, label) == pytest.approx(1)
    assert who_gets_what.information(np.zeros(20, int), label) == 0


def random_cells(vowels, without_noise):
    """A summary of 200 runs in which the first expert takes region 1 in this many."""
    cells = []
    for task, first in (("vowels", vowels), ("patches, no noise", without_noise)):
        others = [(200 - first) // 7] * 7
        counts = [[200 - sum(others), *others]] * 2
        cells.append({"task": task, "n": 200, "counts": counts, "ways": 9, "bits": 0.3})
    return cells


def test_an_even_allocation_is_shown_by_its_bound_and_not_by_a_test_that_finds_nothing():
    holds, words = who_gets_what.random_verdict(random_cells(25, 200))
    assert holds == "holds" and "chance gives about 0.18 and 0.18" in words
    assert who_gets_what.random_verdict(random_cells(45, 200))[0] == "cannot be told"
    assert who_gets_what.random_verdict(random_cells(120, 200))[0] == "not supported"
    holds, words = who_gets_what.random_verdict(random_cells(25, 25))
    assert holds == "cannot be told" and words.startswith("The control without noise")


def test_what_is_explained_is_beyond_what_is_kept_with_nothing():
    noise = 0.02 * np.random.default_rng(0).normal(size=10)
    specs = [{"task": "vowels", "scale": 0.5, "seed": seed} for seed in range(10)]
    results = [{"experts": 0.2, "gate": 1.0, "nothing": 0.2 + value} for value in noise]
    (cell,) = who_gets_what.start_summary(specs, results)
    assert cell["n"] == 10 and cell["explained"]["gate"] == pytest.approx(1)
    assert cell["explained"]["experts"] == pytest.approx(0, abs=0.02)
    assert cell["se"]["gate"] == pytest.approx(noise.std(ddof=1) / 10**0.5 / 0.8, rel=0.02)
    holds, words = who_gets_what.start_verdict([cell])
    assert holds == "holds" and "it holds for vowels at 0.5." in words
    follows_experts = [{**result, "gate": 0.2, "experts": 1.0} for result in results]
    summary = who_gets_what.start_summary(specs, follows_experts)
    assert who_gets_what.start_verdict(summary)[0] == "not supported"
