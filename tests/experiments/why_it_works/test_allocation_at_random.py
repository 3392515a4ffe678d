"""Whether the allocation is random: information, evenness, and regions that avoid each other."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import allocation_at_random
from moe_np.experiments.why_it_works.allocation import E

CHANCE = 1 - 7 * 6 * 5 / 8**3  # that four regions of eight experts have one in common


def test_information_by_hand():
    label = np.repeat([0, 1, 2, 3], 5)
    assert allocation_at_random.information(label[::-1].copy(), label) == pytest.approx(2)
    assert allocation_at_random.information(label // 2, label) == pytest.approx(1)
    assert allocation_at_random.information(np.zeros(20, int), label) == 0


def cells(shared, biased=200, fair=590, first=125, n=1000):
    """A summary of the patches and both controls: runs in which regions have an expert in common,
    and in which the first expert takes a region.
    """
    summary = []
    counts = {"patches": (n, shared, first)}
    counts |= {allocation_at_random.BIASED: (200, biased, 200)}
    counts |= {allocation_at_random.FAIR: (1000, fair, 125)}
    for task, (runs, common, most) in counts.items():
        others = [(runs - most) // (E - 1)] * (E - 1)
        table = [[runs - sum(others), *others]] * 4
        cell = {"task": task, "n": runs, "counts": table, "ways": 9, "bits": 0.3}
        summary.append({**cell, "shared": common})
    return summary


def test_the_chance_of_an_expert_in_common():
    assert allocation_at_random.in_common(4) == pytest.approx(CHANCE)
    assert allocation_at_random.in_common(2) == pytest.approx(1 / 8)
    draws = np.random.default_rng(0).integers(E, size=(20_000, 4))
    seen = np.mean([len(set(row)) < 4 for row in draws.tolist()])
    assert seen == pytest.approx(CHANCE, abs=0.01)


def test_it_is_random_where_regions_meet_as_often_as_by_chance():
    holds, words = allocation_at_random.random_verdict(cells(590))
    assert holds == "holds" and "whether they avoid one cannot be told" in words
    assert "shown for 1 of 1 tasks" in words
    for shared, what in ((200, "avoid"), (950, "are drawn to")):
        holds, words = allocation_at_random.random_verdict(cells(shared))
        assert holds == "not supported" and f"regions {what} an expert" in words
    assert allocation_at_random.random_verdict(cells(420))[0] == "cannot be told"
    few = allocation_at_random.random_verdict(cells(24, first=5, n=40))
    assert few[0] == "cannot be told"


def test_evenness_has_no_part_in_the_verdict():
    holds, words = allocation_at_random.random_verdict(cells(590, first=400))
    assert holds == "holds" and "shown for 0 of 1 tasks" in words


def test_nothing_is_told_where_a_control_fails():
    for controls in ({"biased": 118}, {"fair": 300}):
        holds, words = allocation_at_random.random_verdict(cells(590, **controls))
        assert holds == "cannot be told" and words.startswith("A control did not come out")


def test_other_factors():
    words = allocation_at_random.random_sensitivity(cells(450))
    assert "with 1.25, not supported" not in words and "with 2, cannot be told" in words, (
        "a gate with a bias is not twice as far from chance as one without"
    )


def test_what_runs_can_show():
    """The measure from which on the claim is found to hold in four of five cases, by simulation."""
    decisions = allocation_at_random.random_decisions(cells(590))
    alone, even = decisions[0], decisions[-1]
    rng = np.random.default_rng(0)

    def found(share):
        many = (cells(int(count)) for count in rng.binomial(1000, share, 400))
        return np.mean(
            [allocation_at_random.random_decisions(s)[0]["verdict"] == "holds" for s in many]
        )

    assert -np.log(allocation_at_random.FACTOR) < alone["detectable"] < 0
    ratio = allocation_at_random.FACTOR * np.exp(alone["detectable"])
    assert min(found(CHANCE * ratio), found(CHANCE / ratio)) == pytest.approx(0.8, abs=0.06)
    assert -0.125 < even["detectable"] < 0
    few = allocation_at_random.random_decisions(cells(6, first=2, n=10))
    assert few[0]["detectable"] is None and few[-1]["detectable"] is None
