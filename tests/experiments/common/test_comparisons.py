"""A mixture beside other models: equal sizes and operations, intervals and verdicts by hand."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.common import comparisons, dense_and_mixture, power
from moe_np.experiments.common.dense_and_mixture import MIXTURE, SAME_OPERATIONS, SAME_SIZE
from moe_np.experiments.common.verdicts import Criterion

CRITERION = Criterion("percent right", smallest=1.0)


def test_shapes_have_equal_operations_and_equal_size():
    shapes = [
        dense_and_mixture.shape(model, experts=8, hidden=5, k=2)
        for model in dense_and_mixture.MODELS
    ]
    assert shapes == [(1, 10), (8, 5), (1, 40)]
    with pytest.raises(InputError, match="model: wanted one of"):
        dense_and_mixture.shape("mixtures", experts=8, hidden=5, k=2)


def test_a_gain_is_told_from_chance_and_from_what_does_not_matter():
    def verdict(mixture, smallest=1.0):
        values = {"digits": {MIXTURE: mixture, SAME_SIZE: [90.0, 91.0, 92.0]}}
        criterion = CRITERION._replace(smallest=smallest)
        (record,) = comparisons.claims(values, {"digits": criterion})
        return record["verdict"]

    assert verdict([95.0, 96.1, 97.2]) == "holds"
    assert verdict([90.1, 91.2, 92.1]) == "not supported"  # better, by less than matters
    assert verdict([85.0, 99.0, 92.0]) == "cannot be told"


def test_what_the_seeds_can_show_is_shown_in_four_of_five_repetitions():
    mixture, alone = [3.0, 1.0, 2.5, 2.0], [0.0, 0.5, 0.0, 1.0]
    record = comparisons.claim("task", "dense", mixture, alone, CRITERION)
    sd = np.std(np.subtract(mixture, alone), ddof=1)
    assert power.power((record["shown"] - 1.0) / sd, 4) == pytest.approx(0.8)
    less = CRITERION._replace(direction="less")
    assert comparisons.claim("t", "d", alone, mixture, less)["shown"] == -record["shown"]
    assert comparisons.claim("t", "d", [1.0], [2.0], CRITERION)["shown"] is None


def test_a_comparison_without_runs_is_left_out():
    values = {"digits": {SAME_OPERATIONS: [1.0, 2.0], MIXTURE: [], SAME_SIZE: [1.0]}}
    assert comparisons.claims(values, {"digits": CRITERION}) == []
    assert comparisons.section([]) == ""


def test_the_words_say_where_a_mixture_does_not_help():
    values = {"digits": {MIXTURE: [1.0, 2.0, 3.0], SAME_SIZE: [9.0, 10.1, 11.0]}}
    text = comparisons.section(comparisons.claims(values, {"digits": CRITERION}))
    assert "The mixture does not help by a difference of interest: digits against dense" in text
    assert "It is worse: digits against dense, equal size." in text
    assert CRITERION.text() in text and text.startswith("| task |")


def test_worse_is_told_only_where_the_whole_interval_says_so():
    less = CRITERION._replace(direction="less")
    worse = comparisons.claim("loss", "dense", [3.0, 4.1, 5.0], [1.0, 2.0, 3.0], less)
    unclear = comparisons.claim("loss", "dense", [3.0, 1.1, 5.0], [1.0, 2.0, 3.0], less)
    single = comparisons.claim("loss", "dense", [3.0], [1.0], less)
    assert [comparisons.is_worse(r) for r in (worse, unclear, single)] == [True, False, False]


def test_experts_in_use():
    expert = np.repeat([0, 1, 3], [500, 496, 4])
    assert dense_and_mixture.in_use(expert, 8) == 2
    assert dense_and_mixture.in_use(expert, 8, least=0.001) == 3


def test_what_is_taken_up_is_above_chance_alone():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 4000)
    assert dense_and_mixture.taken_up(label, label, rng) == pytest.approx(100, abs=1)
    assert dense_and_mixture.taken_up(rng.integers(0, 4, 4000), label, rng) < 0.5
    assert dense_and_mixture.taken_up(label, np.zeros(4000, int), rng) == 0
