"""Fine-tuning: the settings that are compared, and words that follow the numbers."""

import dataclasses

import pytest

from moe_np.experiments.common.verdicts import is_below_0
from moe_np.experiments.fine_tuning import experiment, runs
from moe_np.experiments.fine_tuning.report import quality, report, verdict

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("fine_tuning") as sweep:
        return experiment.run(SMOKE, sweep=sweep)


def test_all_sparse_systems_begin_with_the_same_model(result):
    modern = ("paraphrase", runs.MODERN)
    first = {}
    for r in result["runs"]:
        if r["system"] != runs.DENSE:
            first.setdefault(r["system"] in modern, set()).add(r["validation"][0])
    assert [len(losses) for losses in first.values()] == [1, 1]
    last = {r["system"]: r["validation"][-1] for r in result["runs"]}
    assert len({round(loss, 9) for loss in last.values()}) >= len(last) - 1
    assert set(last) == set(runs.SYSTEMS)


def test_dense_and_sparse_are_tuned_alike():
    settings = {}
    for spec in experiment.specs():
        key = (spec["examples"], spec["learning_rate"], spec["batch"], spec["seed"])
        settings.setdefault(spec["system"], set()).add(key)
    assert settings[runs.DENSE] == settings[runs.SPARSE]
    assert len(settings[runs.DENSE]) == 4 * 3 * 2 * 5
    assert {key[0] for key in settings["dropout"]} == {256}


def run_of(rate, seed, validation, test, last, system=runs.SPARSE):
    facts = {"system": system, "seed": seed, "examples": 2, "learning_rate": rate, "batch": 2}
    return {**facts, "validation": validation, "test": test, "test last": last}


def test_the_setting_is_chosen_by_validation_and_compared_by_test():
    sparse = [run_of(rate, s, [5, 4 + rate, 6], 3.0 + s, 4) for rate in (0.1, 0.2) for s in (0, 1)]
    dense = [run_of(0.1, s, [5, 4, 4.5], 2.0 + s, 3, runs.DENSE) for s in (0, 1)]
    best = experiment.best_settings(sparse)
    assert [run["learning_rate"] for run in best["2"]] == [0.1, 0.1]
    found = experiment.differences({runs.SPARSE: sparse, runs.DENSE: dense}, SMOKE)
    assert found["rise"]["2"]["2"]["estimate"] == pytest.approx(1.9 - 0.5)
    assert found["test"]["2"]["low"] == pytest.approx(1.0)
    assert found["remedies"] == {}


def test_overfitting_and_remedies_are_compared_at_equal_batches():
    config = dataclasses.replace(SMOKE, batches=(2, 8))
    dense = [run_of(0.1, s, [5, 4, 4.5], 2.0, 3 + s, runs.DENSE) for s in (0, 1)]
    sparse = [run_of(0.1, s, [5, 4, 4.5], 2.0, 3 + s) for s in (0, 1)]
    larger = [{**run, "batch": 8, "validation": [5, 3.9, 9], "test last": 7} for run in sparse]
    dropout = [{**run, "system": "dropout"} for run in sparse]
    runs_of = {runs.SPARSE: sparse + larger, runs.DENSE: dense, "dropout": dropout}
    assert [run["batch"] for run in experiment.best_settings(sparse + larger)["2"]] == [8, 8]
    found = experiment.differences(runs_of, config)
    assert found["rise"] == {"2": {"2": found["rise"]["2"]["2"]}, "8": {}}
    assert found["rise"]["2"]["2"]["estimate"] == 0
    assert found["remedies"]["dropout"]["estimate"] == 0, "beside sparse at its own batch"


def test_the_words_follow_the_numbers(result):
    assert "Zoph et al. 2022" in report(result)
    more = {"low": 1, "high": 2}
    less = {"low": -2, "high": -1}
    open_ = {"low": -1, "high": 1}
    single = {"low": None, "high": None}
    assert (verdict(more), verdict(less)) == ("more", "less")
    assert "cannot be told" in verdict(open_) and "one seed" in verdict(single)
    assert (quality(more), quality(less)) == ("worse", "better")
    assert "not told" in quality(open_) and "not told" in quality(single)
    assert is_below_0(less) and not is_below_0(open_) and not is_below_0(single)
