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


def test_the_verdict_changes_with_the_numbers():
    cell = {"wins": 9, "n": 9, "mixture": 0.1, "net": 0.2}
    patches = {"mixture": [90.0, 1.0], "net": [80.0, 1.0], "wins": 9, "better": 1, "n": 9}
    patches = [{"told": told, **patches} for told in (True, False)]

    def verdict(ratios):
        regimes = [
            {**cell, "clouds": c, "rules": r, "log ratio": [v, 0.1], "better": -np.sign(v)}
            for (c, r), v in zip(when_it_helps.CELLS, ratios, strict=True)
        ]
        return when_it_helps.help_verdict({"regimes": regimes, "patches": patches})

    holds, words = verdict([-1, -1, 1, 1])
    assert holds == "yes" and "Clusters of inputs are" not in words
    holds, words = verdict([-1, 1, -1, 1])
    assert holds == "no" and "Clusters of inputs are neither needed nor enough." in words
