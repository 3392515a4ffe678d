"""When a mixture helps: samples without their sign, and the verdict."""

import numpy as np

from moe_np.data.clusters import clusters
from moe_np.experiments.why_it_works import when_it_helps


def test_a_sample_without_its_sign_keeps_everything_but_its_centre():
    part, _ = clusters(1, 200, 0, np.random.default_rng(0))
    swapped = when_it_helps.without_sign(part, np.random.default_rng(1))
    changed = (swapped.x != part.x).any(axis=2).sum(axis=1)
    assert set(changed.tolist()) <= {0, 1} and changed.mean() > 0.95

    def named(x):
        return (x @ part.centers.T).max(axis=1).argmax(axis=1)

    assert (named(swapped.x) == part.cluster).mean() < 0.45
    assert (named(part.x) == part.cluster).all()


def verdict(ratios):
    """Of mean log ratios, for clouds and for one cloud: straight rules, waves, one smooth rule."""
    noise = 0.05 * np.random.default_rng(0).normal(size=10)
    cell = {"wins": 9, "n": 10, "mixture": 0.1, "net": 0.2}
    regimes = [
        {**cell, "clouds": c, "rule": r, "log ratio": [v, 0.1], "log ratios": (v + noise).tolist()}
        for (c, r), v in zip(when_it_helps.CELLS, ratios, strict=True)
    ]
    patches = {"mixture": [90.0, 1.0], "net": [80.0, 1.0], "wins": 9, "n": 9}
    patches = [{"told": told, **patches} for told in (True, False)]
    return when_it_helps.help_verdict({"regimes": regimes, "patches": patches})


def test_the_verdict_changes_with_the_numbers():
    holds, words = verdict([-1, -1, -1, -1, 1, 1])
    assert holds == "holds" and "not enough" not in words and "they are not needed" in words
    assert verdict([1, 1, 1, -1, 1, 1])[0] == "not supported", "no case is a control"
    holds, words = verdict([-1, 0.8, 1, -1, 0.3, 1])
    assert holds == "holds under a condition" and "one that an expert can have" in words
    assert "they are not needed" in words and "by 0.00 [0.00, 0.00] (a straight rule" in words


def test_nothing_is_told_where_a_control_fails():
    for ratios in ([-1, 1, 1, 1, 1, 1], [-1, -1, -1, -1, -1, -1], [-1, -1, -1, -1, 1, -0.1]):
        holds, words = verdict(ratios)
        assert holds == "cannot be told" and words.startswith("A control did not come out:")


def test_a_task_of_waves_has_the_inputs_of_a_task_of_straight_rules():
    """The rules of a cell change nothing else: the mixture with straight rules is right at once."""
    spec = {"task": "regimes", "clouds": True, "seed": 0, "n": 120, "restarts": 1, "max_iter": 40}
    errors = {
        rule: when_it_helps.help_run({**spec, "rule": rule})["mixture"]
        for rule in when_it_helps.RULES
    }
    assert errors["straight"] < 0.1 < errors["waves"]
