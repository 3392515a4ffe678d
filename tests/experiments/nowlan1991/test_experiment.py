"""The ten vowels of Nowlan and Hinton (1991): rows, runs, results, and verdicts of the report."""

import dataclasses
import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.base.machine import one_blas_thread
from moe_np.data.speech.ten_vowels import FRONT, NAMES
from moe_np.experiments import nowlan1991
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.nowlan1991 import experiment, runs
from moe_np.experiments.nowlan1991.report import published_errors
from moe_np.mixtures import jacobs1991

SHORT = nowlan1991.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("nowlan1991") as sweep:
        return nowlan1991.run(sweep=sweep, **nowlan1991.SMOKE)


# --- Results --------------------------------------------------------------------------------------


def test_a_result_has_what_the_contract_says(result):
    assert json.loads(to_json(result)) == json.loads(to_json(result))
    assert result["name"] == "nowlan1991" and result["seeds"] == [0, 1]
    assert len(result["cells"]) == 6
    for cell in result["cells"]:
        assert len(cell["runs"]) == 2 and cell["lr"] == 0.1
        assert all(0 <= r[k] <= 100 for r in cell["runs"] for k in ("train", "test"))
        assert ("of vowel" in cell["runs"][0]) == (cell["system"] == "mixture")
    text = nowlan1991.report(result)
    for words in ("(13.9)", "(23.3)", "(6.4)", "(15.4)", "front vowels share an expert"):
        assert words in text
    assert "Chosen, because we do not know" in text and "| F1, F2 + speaker |" in text


def test_a_run_is_its_spec(result):
    cell = result["cells"][2]
    config = experiment.quick_config(SHORT)
    spec = runs.spec_of(config, cell["row"], cell["system"], 1, cell["lr"])
    with one_blas_thread():
        repeated = nowlan1991.run_one(spec)
    assert repeated == cell["runs"][1] != cell["runs"][0]


@pytest.mark.parametrize("bad", [{"system": "linear"}, {"row": "F9"}])
def test_an_unknown_choice_is_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        nowlan1991.run_one({**runs.spec_of(SHORT, "F1, F2", "mixture", 0, 0.1), **bad})


def test_specs_are_the_exploration_and_seeds_are_checked(result):
    config = nowlan1991.Config()
    cells = 2 * len(runs.PUBLISHED)  # rows × systems
    assert len(nowlan1991.specs()) == cells * len(config.grid) * config.grid_seeds
    assert {spec["seed"] for spec in nowlan1991.specs()} == {1000, 1001, 1002}
    assert {s["system"] for s in nowlan1991.specs(only=("backprop",))} == {"backprop"}
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        nowlan1991.specs(seeds=0)


def test_the_report_of_a_single_system_has_its_columns_and_verdicts(result):
    for system in nowlan1991.SYSTEMS:
        cells = [cell for cell in result["cells"] if cell["system"] == system]
        text = nowlan1991.report({**result, "cells": cells})
        is_mixture = system == "mixture"
        assert f"| {system}, training | test |" in text and "Welch" not in text
        assert f"**The published {system}**" in text and text.count("The published") == 1
        assert ("share an expert" in text) == ("not see how two" in text) == is_mixture


# --- Rows and learning rates ----------------------------------------------------------------------


def test_every_row_trains():
    config = dataclasses.replace(SHORT, steps=3)
    for row in runs.ROWS:
        for system in row.systems:
            spec = runs.spec_of(config, row.name, system, 0, 0.1)
            assert 0 < nowlan1991.run_one(spec)["train"] < 100
            assert ("sigma" in spec) == (system == "mixture")
    assert len(runs.BY_NAME) == len(runs.ROWS)
    assert all(row.lr_from is None or row.lr_from in runs.BY_NAME for row in runs.ROWS)


def test_sigma_narrows_to_its_value():
    config = nowlan1991.Config()
    widths = runs.widths(runs.spec_of(config, "F1, F2; σ narrows", "mixture", 0, 0.1))
    assert len(widths) == 600 and widths[0] == 2.0 and widths[-1] == widths[361] == 0.25
    assert np.all(np.diff(widths) <= 0) and len(set(widths)) <= 31
    assert set(runs.widths(runs.spec_of(config, "F1, F2", "mixture", 0, 0.1))) == {0.25}


def test_the_learning_rate_is_the_one_with_the_lowest_training_error(monkeypatch):
    def fake(spec):
        lr = spec["lr"]
        return {"train": abs(lr - 0.03) if spec["system"] == "mixture" else lr, "test": 0}

    monkeypatch.setattr(experiment, "run_one", fake)
    with Sweep(jobs=1, progress=False) as sweep:
        lr = experiment.explore(SHORT, runs.ROWS, sweep)
    assert lr["F1, F2", "mixture"] == 0.03 and lr["F1, F2", "backprop"] == 0.01
    assert lr["F1, F2; σ narrows", "mixture"] == 0.03
    assert len(lr) == sum(len(row.systems) for row in runs.ROWS)


# --- The parts of a run ---------------------------------------------------------------------------


def test_gradient_of_the_net():
    rng = np.random.default_rng(0)
    params = jacobs1991.init_net(rng, 4, 3, 5, init_range=0.8)
    z = rng.normal(size=(6, 3))
    d = np.eye(5)[rng.integers(5, size=6)]
    _, grads = runs.net_loss(params, z, d)
    errors = gradient_error(lambda p: runs.net_loss(p, z, d)[0], params, grads, rng)
    assert max(errors.values()) < 1e-7, errors


def test_allocation_by_hand():
    vowel = np.repeat(np.arange(10), 4)
    expert = np.where(vowel < 4, 1, 0)
    expert[0] = 2  # one token of the first vowel elsewhere
    result = runs.allocation(expert, vowel)
    assert result["of vowel"] == [1] * 4 + [0] * 6 and result["in use"] == 2
    assert result["front"] == pytest.approx((6 * 0.75 + 6) / 12) and result["front and back"] == 0
    assert NAMES[:4] == FRONT


def test_the_reference_separates_what_it_can():
    train, test = runs.reference("F1 F2")
    assert 20 < train < 28 and 20 < test < 28
    assert runs.reference("F1 F2 F3")[0] < train - 5


# --- Verdicts -------------------------------------------------------------------------------------


def test_verdicts_come_from_the_numbers(result):
    ours = json.loads(to_json(result))
    for cell in ours["cells"]:
        published = runs.BY_NAME[cell["row"]].published
        i = nowlan1991.SYSTEMS.index(cell["system"])
        for r, shift in zip(cell["runs"], (-0.1, 0.1), strict=True):
            r["train"] = nowlan1991.PAPER["training"][published][i] + shift
            r["test"] = (nowlan1991.PAPER["generalisation"][published][i] or 9.0) + shift
            if i == 0:
                r["of vowel"] = [3] * 4 + list(range(6))
    text = nowlan1991.report(ours)
    for system in nowlan1991.SYSTEMS:
        assert "does **not** come out" not in published_errors(ours, system)
    assert "does **not** come out" in published_errors(result, "mixture")
    assert "not see how two" in text and "comes out in every row" in text
    assert "could not be checked in a copy of it): in 6 of 6 runs" in text


@pytest.mark.slow
def test_the_gate_does_the_work_and_is_told_who_speaks():
    """With the speaker's identity the error falls by half; at σ = .25 about one expert for each
    vowel is in use.
    """
    config = nowlan1991.Config(steps=250)
    specs = [runs.spec_of(config, row, "mixture", 0, 0.1) for row in ("F1, F2", "F1, F2 + speaker")]
    with one_blas_thread():
        unknown, known = (nowlan1991.run_one(spec) for spec in specs)
    assert 21 < unknown["test"] < 27 and known["test"] < 0.6 * unknown["test"]
    assert unknown["in use"] > 7 and known["in use"] > 7
