"""What the questions have in common: groups and means."""

import numpy as np

from moe_np.experiments.why_it_works.questions import (
    grouped,
    mean_and_sd,
)


def test_groups_and_means():
    specs = [{"task": "b", "seed": 0}, {"task": "a", "seed": 0}, {"task": "b", "seed": 1}]
    groups = grouped(specs, [{"v": 1}, {"v": 5}, {"v": 3}], "task")
    assert list(groups.items()) == [(("b",), [{"v": 1}, {"v": 3}]), (("a",), [{"v": 5}])]
    assert mean_and_sd([1, 3]) == [2.0, np.sqrt(2)] and mean_and_sd([4]) == [4.0, 0.0]
