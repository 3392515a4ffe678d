"""Who takes what: information, what stays for good, and which source of chance explains it."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import who_gets_what


def test_information_by_hand():
    label = np.repeat([0, 1, 2, 3], 5)
    assert who_gets_what.information(label[::-1].copy(), label) == pytest.approx(2)
    assert who_gets_what.information(label // 2, label) == pytest.approx(1)
    assert who_gets_what.information(np.zeros(20, int), label) == 0


def test_for_good_means_never_below_again():
    curve = np.array([0.0, 0.9, 0.2, 0.6, 0.8, 1.0])
    assert who_gets_what.for_good(curve, 0.5) == 3 and who_gets_what.for_good(curve, 0.1) == 1
    assert who_gets_what.for_good(curve + 1, 0.5) == 0


def test_the_explained_share_is_1_for_all_and_0_for_chance():
    specs = [{"task": "vowels", "scale": 0.5, "seed": seed} for seed in range(2)]
    results = [{"experts": 1 / 8, "gate": 1.0, "nothing": 1 / 8}] * 2
    (cell,) = who_gets_what.start_summary(specs, results)
    assert cell["explained"] == {"experts": 0.0, "gate": 1.0} and cell["n"] == 2
    assert cell["se"] == {"experts": 0.0, "gate": 0.0}
    holds, words = who_gets_what.start_verdict([cell])
    assert holds == "yes" and "decides (more than half) for vowels at 0.5." in words
