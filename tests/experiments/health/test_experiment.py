"""The health experiment: calibration by hand, folds that hold out every case once, reports."""

import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.health import calibration, experiment, methods, runs
from moe_np.experiments.health.report import report


@pytest.fixture(scope="module")
def result(smoke_sweep):
    pytest.importorskip("sklearn")
    with smoke_sweep("health") as sweep:
        return json.loads(to_json(experiment.run(sweep=sweep, **experiment.SMOKE)))


def test_calibration_by_hand():
    p, y = np.array([0.05, 0.05, 0.95, 1.0]), np.array([0, 1, 1, 1])
    assert calibration.brier(p, y) == pytest.approx((0.0025 + 0.9025 + 0.0025) / 4)
    count, predicted, seen = calibration.reliability(p, y)
    assert count.tolist() == [2, *[0] * 8, 2]
    np.testing.assert_allclose(predicted[[0, -1]], [0.1, 1.95])
    assert seen[[0, -1]].tolist() == [1, 2]
    assert calibration.ece(count, predicted, seen) == pytest.approx((0.9 + 0.05) / 4)


def test_the_ece_of_right_probabilities_is_that_of_chance():
    rng = np.random.default_rng(0)
    p = rng.random(400)
    by_chance = calibration.ece_by_chance(p, rng)
    values = []
    for _ in range(50):
        values.append(calibration.ece(*calibration.reliability(p, (rng.random(400) < p) * 1.0)))
    assert by_chance == pytest.approx(np.mean(values), rel=0.15)
    wrong = calibration.ece(*calibration.reliability(p, (rng.random(400) < p**3) * 1.0))
    assert wrong > 3 * by_chance


@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        ([0.5, 1.2], [0, 1], "p: wanted probabilities, got 0.5 to 1.2"),
        ([0.5, np.nan], [0, 1], "p: wanted finite"),
        ([0.5, 0.5], [0, 2], "y: wanted 0 or 1"),
        ([], [], "p: wanted at least one case"),
        ([0.5], [0, 1], "y: wanted"),
    ],
)
def test_what_is_no_probability_is_refused(p, y, words):
    with pytest.raises(InputError, match=words):
        calibration.brier(np.array(p, float), np.array(y))


def test_five_seeds_hold_out_every_case_once():
    held_out = np.sum([runs.fold(23, seed) for seed in range(5)], axis=0)
    assert (held_out == 1).all()
    assert (runs.fold(23, 0) != runs.fold(23, 5)).any()  # another split


def test_a_mixture_predicts_its_own_distribution_and_others_a_gaussian(result):
    by_system = {run["system"]: run for run in result["runs"]}
    assert set(by_system) == set(runs.SYSTEMS)
    for run in result["runs"]:
        if run["system"].startswith(methods.DIABETES):
            assert all(0 <= value <= 1 for value in run["P(Y <= y)"]) and run["width"] > 0
        else:
            assert len(run["p"]) == len(run["y"]) and 0 <= run["Brier"] <= 1
    sizes = {system: run["parameters"] for system, run in by_system.items()}
    assert sizes["breast cancer: linear"] == 31
    assert sizes["breast cancer: mixture"] == 93  # two experts and a gate of 31 numbers each
    assert sizes["breast cancer: neural network"] == 97


def test_the_report_has_calibration_and_verdicts(result):
    text = report(result)
    assert "Brier score" in text and "in 90 % intervals" in text and "cannot be told" in text
    pairs = {(claim["task"], claim["against"]) for claim in result["claims"]}
    assert pairs == {(data, other) for data in methods.DATA for other in experiment.OTHERS}


def test_an_unknown_table_or_method_is_refused():
    with pytest.raises(InputError, match="name: wanted one of breast cancer, diabetes"):
        methods.table("measles")
    with pytest.raises(InputError, match="method: wanted one of"):
        methods.estimator(methods.CANCER, "leeches", 0, {})
