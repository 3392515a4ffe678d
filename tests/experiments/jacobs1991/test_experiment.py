"""The vowel experiment of Jacobs et al. (1991): results, exploration, tests, published order."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from moe_np.base.checks import InputError
from moe_np.experiments import jacobs1991
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.jacobs1991 import runs, sensitivity
from moe_np.experiments.jacobs1991.report import explore_table

SHORT = jacobs1991.Config(
    stop=0.24, max_epochs=300, grid=(0.02, 0.06), grid_seeds=2, grid_epochs=100
)


@pytest.fixture
def sweep():
    with Sweep(jobs=1, progress=False) as sweep:
        yield sweep


def test_a_result_has_what_the_contract_says(sweep):
    result = jacobs1991.run(SHORT, seeds=3, sweep=sweep)
    assert json.loads(to_json(result)) == json.loads(to_json(result))
    assert result["name"] == "jacobs1991" and result["seeds"] == [0, 1, 2]
    assert [system["system"] for system in result["systems"]] == list(jacobs1991.SYSTEMS)
    for system in result["systems"]:
        assert all(len(system[k]) == 3 for k in ("epochs", "train", "test", "reached"))
        assert all(0 < e <= 300 for e in system["epochs"]) and all(
            0 <= v <= 100 for v in system["train"] + system["test"]
        )
        assert system["failures"] == system["reached"].count(False)
        assert ("active" in system) == ("experts" in system["system"])
    table = jacobs1991.report(result)
    for published in jacobs1991.PAPER["table1"].values():
        assert f"({published['epochs']} ± {published['sd']})" in table
    assert "What does not reproduce" in table


def test_fewer_seeds_are_the_first_of_more(sweep):
    few, more = (jacobs1991.run(SHORT, seeds=n, sweep=sweep) for n in (1, 3))
    for a, b in zip(few["systems"], more["systems"], strict=True):
        assert all(a[k] == b[k][:1] for k in ("epochs", "train", "test"))
    assert all(test["p"] is None for test in few["tests"]) and not any(few["claims"].values())
    jacobs1991.report(few)


def test_failures_are_counted_and_said(sweep):
    never = dataclasses.replace(SHORT, stop=0.0, max_epochs=5)
    result = jacobs1991.run(never, seeds=2, sweep=sweep)
    for system in result["systems"]:
        assert system["epochs"] == [5, 5] and system["failures"] == 2
    assert all(test["p"] is None for test in result["tests"])  # no variance, no test
    assert jacobs1991.report(result).count("| 2 |") == 4


def test_t_tests_are_the_pooled_ones():
    epochs = {
        "4 experts": [10, 12, 14],
        "8 experts": [9, 8, 10],
        "backprop 6": [20, 22, 21],
        "backprop 12": [19, 24, 22],
    }
    tests = runs.compare([{"system": s, "epochs": e} for s, e in epochs.items()])
    assert len(tests) == 6
    test = next(t for t in tests if (t["fast"], t["slow"]) == ("8 experts", "4 experts"))
    pooled = np.sqrt((np.var([10, 12, 14], ddof=1) + np.var([9, 8, 10], ddof=1)) / 3)
    assert test["t"] == pytest.approx(3 / pooled) and test["df"] == 4 and test["difference"] == 3
    assert test["p"] == pytest.approx(2 * stats.t.sf(3 / pooled, 4))
    half = stats.t.ppf(0.975, 4) * pooled
    assert (test["low"], test["high"]) == pytest.approx((3 - half, 3 + half))
    assert test["g"] == pytest.approx(np.sqrt(2 / 3) * 3 / pooled * (1 - 3 / 15), rel=0.01)
    assert runs.claims(tests) == {
        "mixtures faster": True,
        "8 faster than 4": False,
        "12 slower than 6": False,
    }
    assert sensitivity.verdicts(tests)["8 faster than 4"] == "direction"
    assert (
        set(runs.claims(tests))
        == set(jacobs1991.PAPER["claims"])
        == {claim for claim, _, _ in runs.TESTS}
    )


def test_exploration_takes_the_lowest_mean_and_other_seeds(sweep, monkeypatch):
    specs = []

    def fake(spec):
        specs.append(spec)
        return {"epochs": 50 if spec["lr"] == 0.06 else 100, "reached": spec["lr"] == 0.06}

    monkeypatch.setattr(runs, "run_one", fake)
    explored = runs.explore(SHORT, sweep)
    assert [system["best"] for system in explored] == [0.06] * 4
    assert [cell["failures"] for cell in explored[0]["grid"]] == [2, 0]
    assert {s["seed"] for s in specs} == {1000, 1001} and {s["max_epochs"] for s in specs} == {100}
    assert "100 (2)" in explore_table(explored, SHORT)


def test_a_run_is_its_spec():
    spec = runs.spec_of(SHORT, "8 experts", 7)
    assert jacobs1991.run_one(spec) == jacobs1991.run_one(json.loads(json.dumps(spec)))
    assert jacobs1991.run_one(spec) != jacobs1991.run_one({**spec, "seed": 8})


@pytest.mark.parametrize("bad", [{"system": "5 experts"}, {"coding": "none"}, {"split": "odd"}])
def test_an_unknown_choice_is_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        jacobs1991.run_one({**runs.spec_of(SHORT, "4 experts", 0), **bad})


def test_seeds_are_checked(sweep):
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        jacobs1991.run(SHORT, seeds=0, sweep=sweep)


def test_one_hot_outputs_are_scored_by_the_largest():
    spec = {**runs.spec_of(SHORT, "4 experts", 0, lr=0.01), "coding": "one-hot", "stop": 0.12}
    result = jacobs1991.run_one(spec)
    assert result["reached"] and result["train"] > 60
    # the stop rule is an average over outputs: four of them may sum to four times as much
    assert 0.12 < runs.train(spec)[2].squared_error <= 0.48


def test_every_cell_of_the_sensitivity_table_is_a_task():
    for quick in (False, True):
        cells = sensitivity.cells(quick)
        assert len({(c, s, config.spread) for c, s, config in cells}) == len(cells)
        for coding, _, config in cells:
            assert config.coding == coding
            data = runs.task(config.coding, config.drop, config.split, config.split_seed)
            assert data.x_train.shape == (400, 2) and data.d_train.shape[1] == (
                4 if coding == "one-hot" else 1
            )


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [2])
def test_jobs_do_not_change_a_bit(sweep, jobs):
    with Sweep(jobs=jobs, progress=False) as parallel:
        assert (
            jacobs1991.run(SHORT, seeds=2, sweep=parallel)["systems"]
            == jacobs1991.run(SHORT, seeds=2, sweep=sweep)["systems"]
        )


@pytest.mark.slow
def test_the_published_order_of_the_means(sweep):
    """Both mixtures well below both nets, and means within 15 % of Table 1."""
    result = jacobs1991.run(sweep=sweep)
    means = {system["system"]: system["epochs"]["mean"] for system in result["summary"]}
    for system, published in jacobs1991.PAPER["table1"].items():
        assert means[system] == pytest.approx(published["epochs"], rel=0.15)
    assert result["claims"]["mixtures faster"] and result["claims"]["12 slower than 6"]
    assert all(system["failures"] == 0 for system in result["systems"])
    assert all(88 < s[k]["mean"] < 95 for s in result["summary"] for k in ("train", "test"))
    assert {a for system in result["systems"] for a in system.get("active", [])} == {2}
