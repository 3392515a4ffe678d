"""What the questions have in common: the test of a difference, and means."""

import numpy as np

from moe_np.experiments.why_it_works.questions import (
    grouped,
    mean_and_sd,
    numbers,
    sign_of_difference,
)


def test_the_sign_of_a_difference_is_that_of_the_paired_t_test():
    assert sign_of_difference([1.0, 2.0, -1.5, 1.2]) == 0
    assert sign_of_difference([1.0, 1.1, 0.9, 1.0, 1.05]) == 1
    assert sign_of_difference([3.0]) == 0
    assert sign_of_difference(np.arange(5.0), np.arange(5.0)) == 0


def test_differences_that_are_all_the_same_are_tested_as_signs():
    assert sign_of_difference(np.full(8, -2.0)) == -1  # 2 / 2⁸ < .01
    assert sign_of_difference(np.full(7, -2.0)) == 0  # 2 / 2⁷ > .01
    assert sign_of_difference(np.full(25, 2.0)) == 1  # more than are looked at exactly


def test_groups_and_means():
    specs = [{"task": "b", "seed": 0}, {"task": "a", "seed": 0}, {"task": "b", "seed": 1}]
    groups = grouped(specs, [{"v": 1}, {"v": 5}, {"v": 3}], "task")
    assert list(groups.items()) == [(("b",), [{"v": 1}, {"v": 3}]), (("a",), [{"v": 5}])]
    assert mean_and_sd([1, 3]) == [2.0, np.sqrt(2)] and mean_and_sd([4]) == [4.0, 0.0]
    assert numbers((0, 0.5, 10)) == ["0", "0.5", "10"]
