"""The batch curve: equal sizes, the model's constants, words that follow the numbers."""

import json

import numpy as np
import pytest

from moe_np.experiments.batch_curve import experiment, runs
from moe_np.experiments.batch_curve.report import report
from moe_np.experiments.common.sweep import to_json

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("batch_curve") as sweep:
        return json.loads(to_json(experiment.run(SMOKE, sweep=sweep)))


def test_equal_operations_and_equal_parameters(result):
    weights = {system: ours["weights"] for system, ours in result["summary"].items()}
    assert weights[runs.SPARSE] == weights[runs.TOTAL] == 4 * 3 * 8 * 16 * 4
    assert weights[runs.ACTIVE] * 2 == weights[runs.SPARSE]
    for n in (1, 16):
        needs = {system: experiment.work(SMOKE, system, n) for system in runs.SYSTEMS}
        assert needs[runs.SPARSE][1] == needs[runs.ACTIVE][1] == needs[runs.TOTAL][1] / 2
    assert experiment.work(SMOKE, runs.SPARSE, 1)[0] == experiment.work(SMOKE, runs.ACTIVE, 1)[0]


def test_experts_touched(result):
    touched = result["summary"][runs.SPARSE]["touched"]
    assert touched[0] == result["expected"][0] == 2
    assert touched == sorted(touched) and touched[-1] <= 4
    assert result["expected"][-1] == pytest.approx(4, rel=1e-4)


def test_every_time_is_there(result):
    assert result["summary"][runs.TOTAL]["tokens"] == [1, 4]
    for ours in result["summary"].values():
        assert len(ours["median"]) == len(ours["tokens"]) and min(ours["low"]) > 0
    assert len(result["ratios"][runs.TOTAL]) == 2 and runs.SPARSE not in result["ratios"]


def test_the_model_finds_constants_that_made_the_times():
    config = runs.Config()
    summary = {}
    for system in runs.SYSTEMS:
        needs = np.array([experiment.work(config, system, n) for n in config.tokens])
        times = (needs / (8e9, 60e9)).sum(axis=1) / config.tokens
        summary[system] = {"tokens": config.tokens, "median": times.tolist()}
    model = experiment.model(config, summary)
    assert model["bandwidth"] == pytest.approx(8e9) and model["rate"] == pytest.approx(60e9)
    assert model["largest_error"] < 1e-9
    np.testing.assert_allclose(model["seconds"][runs.SPARSE], summary[runs.SPARSE]["median"])
    ratio = experiment.ratios(summary)
    assert max(ratio[runs.ACTIVE]) > 5 and max(ratio[runs.TOTAL]) < 1


def test_the_report_says_where_the_sparse_layer_is_slowest(result):
    result["ratios"][runs.ACTIVE] = [1.5, 8.0, 2.0]
    assert "slowest at 4 tokens, 8.0 times its time; it is nowhere faster." in report(result)
    result["ratios"][runs.ACTIVE] = [0.5, 8.0, 2.0]
    assert "at best 0.50 times." in report(result)


def test_memory_is_that_of_the_weights():
    spec = runs.spec_of(SMOKE, runs.SPARSE, 0) | {"d": 512, "hidden": 1024, "experts": 16}
    measured = runs.run_one(spec)
    if measured["resident"] is not None:
        assert 0.9 < measured["resident"] / measured["weights"] < 2.5
