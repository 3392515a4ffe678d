"""Who takes what: information, and which source of chance explains it."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import who_gets_what


def test_information_by_hand():
    label = np.repeat([0, 1, 2, 3], 5)
    assert who_gets_what.information(label[::-1].copy(), label) == pytest.approx(2)
    assert who_gets_what.information(label // 2, label) == pytest.approx(1)
    assert who_gets_what.information(np.zeros(20, int), label) == 0


def random_cells(vowels, biased, shared=10):
    """A summary of 200 runs in which the first expert takes region 1 in this many."""
    cells = []
    for task, first in (("vowels", vowels), (who_gets_what.BIASED, biased)):
        others = [(200 - first) // 7] * 7
        counts = [[200 - sum(others), *others]] * 2
        cells.append({"task": task, "n": 200, "counts": counts, "ways": 9, "bits": 0.3})
        cells[-1]["shared"] = shared
    return cells


def test_an_even_allocation_is_shown_by_its_bound_and_not_by_a_test_that_finds_nothing():
    holds, words = who_gets_what.random_verdict(random_cells(25, 200))
    assert holds == "cannot be told", "200 runs are too few for the level of the whole table"
    many = random_cells(25, 200)
    many[0] = {**many[0], "n": 2000, "counts": [[250] * 8] * 2, "shared": 100}
    holds, words = who_gets_what.random_verdict(many)
    assert holds == "holds" and "chance gives about 0.02." in words
    assert "with three times that by chance, holds" in who_gets_what.random_sensitivity(many)
    assert who_gets_what.random_verdict(random_cells(120, 200))[0] == "not supported"
    for control in (25, 60):
        holds, words = who_gets_what.random_verdict([many[0], random_cells(25, control)[1]])
        assert holds == "cannot be told" and words.startswith("A control did not come out")


def test_the_share_that_runs_can_show():
    shown, _ = who_gets_what.random_decisions(random_cells(25, 200))
    assert -0.25 < shown["detectable"] < -0.125, "an even share is not shown to be below twice it"
    few = [
        {**cell, "n": 10, "counts": [[3, 1, 1, 1, 1, 1, 1, 1]]} for cell in random_cells(25, 200)
    ]
    assert who_gets_what.random_decisions(few)[0]["detectable"] is None


def test_regions_that_avoid_an_expert():
    def words(shared):
        return who_gets_what.random_verdict(random_cells(25, 200, shared))[1]

    assert "12.5 % if each drew its expert alone: so regions avoid" in words(2)
    assert "cannot be told" in words(25).split("alone: ")[1]
    assert "so regions are drawn" in words(90)


def test_what_is_explained_is_beyond_what_is_kept_with_nothing():
    noise = 0.02 * np.random.default_rng(0).normal(size=10)
    specs = [{"task": "vowels", "scale": 0.5, "seed": seed} for seed in range(10)]
    results = [{"experts": 0.2, "gate": 1.0, "nothing": 0.2 + value} for value in noise]
    (cell,) = who_gets_what.start_summary(specs, results)
    assert cell["n"] == 10 and cell["explained"]["gate"] == pytest.approx(1)
    assert cell["explained"]["experts"] == pytest.approx(0, abs=0.02)
    assert cell["se"]["gate"] == pytest.approx(noise.std(ddof=1) / 10**0.5 / 0.8, rel=0.02)
    holds, words = who_gets_what.start_verdict([cell])
    assert holds == "holds" and "it holds for vowels at 0.5. That it decides more" in words
    assert words.endswith("another source: it holds for vowels at 0.5, gate against experts.")
    follows_experts = [{**result, "gate": 0.2, "experts": 1.0} for result in results]
    summary = who_gets_what.start_summary(specs, follows_experts)
    assert who_gets_what.start_verdict(summary)[0] == "not supported"
