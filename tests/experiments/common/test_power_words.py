"""The sentence on power in reports."""

import numpy as np
import pytest

from moe_np.experiments.common.power import smallest_difference
from moe_np.experiments.common.power_words import power_sentence, spread_of
from moe_np.experiments.common.statistics import describe, t_interval

VALUES = [0.3, 0.5, 0.1, 0.45, 0.2]


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_spread_is_read_from_an_interval(level):
    record = t_interval(VALUES, level=level).record()
    assert spread_of(record, 5) == pytest.approx(describe(VALUES).sd)
    assert spread_of({"mean": 1.0, "sd": 0.2}, 5) == spread_of([1.0, 0.2], 5) == 0.2
    assert spread_of(None, 5) is None and spread_of([1.0, 0.2], 1) is None
    assert spread_of(t_interval([1.0]).record(), 1) is None


def test_a_sentence_has_the_smallest_difference():
    size = smallest_difference(5, float(np.std(VALUES, ddof=1)))
    text = power_sentence({"a less b": t_interval(VALUES).record()}, 5, "nats")
    assert f": {size:.3f} (a less b) nats." in text
    assert "With 5 seeds a difference would be seen in 80 % of the cases (paired t test" in text
    two = power_sentence({"a": [3, 1.0]}, 25, "epochs", digits=1, runs="run", paired=False)
    size = smallest_difference(25, 1.0, paired=False)
    assert "With 25 runs each" in two and f"{size:.1f} (a) epochs." in two


def test_of_many_names_the_ends_are_said():
    values = {
        name: {"mean": 0, "sd": sd} for name, sd in zip("abcde", (3, 1, 2, 5, 4), strict=True)
    }
    text = power_sentence(values, 10)
    assert "(b) to " in text and text.endswith("(d).") and "(c)" not in text


def test_one_run_shows_nothing():
    text = power_sentence({"a less b": t_interval([1.0]).record()}, 1)
    assert text == "**Power.** 1 seed cannot show any difference: the spread is not known."
    assert power_sentence({}, 5) == ""
