"""How experts depend on each other, under three errors."""

import numpy as np

from moe_np.experiments.why_it_works import cooperation
from moe_np.experiments.why_it_works.tasks import LEARNING_RATES


def test_dependence_by_hand():
    d = np.zeros((2, 1))
    p = np.full((2, 2), 0.5)
    o = np.array([[[1.0], [-1.0]], [[2.0], [-2.0]]])  # the error of one cancels that of the other
    coupled = cooperation.dependence(o, p, d)
    assert coupled["blend"] == 0 and coupled["cancelled"] == 1 and coupled["correlation"] == -1
    assert coupled["alone"] == coupled["without"] == 2.5 and coupled["in use"] == 1
    alone = cooperation.dependence(o, np.array([[1.0, 0.0], [0.0, 1.0]]), d)
    assert alone["cancelled"] == 0 and alone["blend"] == alone["alone"] == 2.5


def test_cooperation_is_tested_against_both_other_errors():
    noise = 0.01 * np.random.default_rng(0).normal(size=8)

    def cells(second, third):
        shared = {"n": 8, "dependent": 0, "blend": 0.1}
        return [
            {**shared, "task": task, "error": error, "cancelled": [v, 0], "cancels": values}
            for task in cooperation.TASKS
            for error, v in zip(LEARNING_RATES, (0.5, second, third), strict=True)
            for values in [(v + noise * v).tolist()]
        ]

    assert cooperation.errors_verdict(cells(0.1, 0.1))[0] == "holds"
    holds, words = cooperation.errors_verdict(cells(0.5, 0.1))
    assert holds == "holds under a condition"
    assert "not supported for vowels, eq. 1 against eq. 2" in words
    assert cooperation.errors_verdict(cells(0.6, 0.6))[0] == "not supported"
