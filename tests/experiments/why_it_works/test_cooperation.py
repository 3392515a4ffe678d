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


NOISE = 0.01 * np.random.default_rng(0).normal(size=8)


def cell(task, error, share, under_other_choices=None):
    """A cell whose experts' errors cancel by about this share."""
    values = (share + NOISE * share).tolist()
    cell = {"n": 8, "dependent": 0, "blend": 0.1, "task": task, "error": error}
    words = cooperation.OTHER_SIGMAS if task == "regression" else (cooperation.HALF,)
    if task == "regression" and error != "mixture":
        words = ()
    others = {
        w: values if under_other_choices is None else [v * under_other_choices for v in values]
        for w in words
    }
    return {**cell, "cancelled": [share, 0], "cancels": values, "under other choices": others}


def test_what_is_chosen_is_varied():
    cells = [
        cell(task, error, share, 0.1 if error == "mixture" else None)
        for task in cooperation.TASKS
        for error, share in zip(LEARNING_RATES, (0.5, 0.4, 0.49), strict=True)
    ]
    usual = {d["case"]: d["verdict"] for d in cooperation.errors_decisions(cells)}
    varied = {d["case"]: d["verdict"] for d in cooperation.errors_sensitivity(cells)}
    assert len(varied) == 4
    assert usual["regression, eq. 1 against eq. 3"] == "not supported"
    assert varied["regression, eq. 1 against eq. 3 (twice σ)"] == "holds"
    assert varied["vowels, eq. 1 against eq. 3 (half the epochs)"] == "holds"
    assert varied["vowels, eq. 1 against eq. 2 (half the epochs)"] == "holds"
    assert "(half of σ)" in cooperation.errors_verdict(cells)[1]


def test_a_run_has_what_other_choices_give():
    spec = {"task": "regression", "error": "mixture", "seed": 0, "epochs": 30}
    run = cooperation.errors_run(spec)
    others = run["under other choices"]
    assert set(others) == set(cooperation.OTHER_SIGMAS) and len({*others.values()}) == 2
    vowels = {"task": "vowels", "error": "cooperative", "seed": 0, "epochs": 40}
    half = cooperation.errors_run({**vowels, "epochs": 20})["cancelled"]
    assert cooperation.errors_run(vowels)["under other choices"] == {cooperation.HALF: half}


def test_cooperation_is_tested_against_both_other_errors():
    def cells(second, third):
        return [
            cell(task, error, v)
            for task in cooperation.TASKS
            for error, v in zip(LEARNING_RATES, (0.5, second, third), strict=True)
        ]

    assert cooperation.errors_verdict(cells(0.1, 0.1))[0] == "holds"
    holds, words = cooperation.errors_verdict(cells(0.5, 0.1))
    assert holds == "holds under a condition"
    assert "not supported for vowels, eq. 1 against eq. 2" in words
    assert cooperation.errors_verdict(cells(0.6, 0.6))[0] == "not supported"
