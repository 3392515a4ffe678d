"""Fine-tuning: the settings that are compared, and words that follow the numbers."""

import pytest

from moe_np.experiments.fine_tuning import experiment, runs
from moe_np.experiments.fine_tuning.report import helps, quality, report, verdict

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
    best = {runs.SPARSE: experiment.best_settings(sparse), runs.DENSE: {"2": dense}}
    assert [run["learning_rate"] for run in best[runs.SPARSE]["2"]] == [0.1, 0.1]
    found = experiment.differences(best, SMOKE)
    assert found["rise"]["2"]["estimate"] == pytest.approx(1.9 - 0.5)
    assert found["test"]["2"]["low"] == pytest.approx(1.0)
    assert found["remedies"] == {}


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
    assert helps(less) and not helps(open_) and not helps(single)
