"""The comparison of language models: equal operations, what is reached when, and words that follow
the numbers."""

import numpy as np
import pytest

from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.language_model import equal_quality, experiment, overfitting, runs
from moe_np.experiments.language_model.report import loss_sentence, report

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("language_model") as sweep:
        return experiment.run(SMOKE, sweep=sweep), sweep.store


def test_systems_have_equal_operations_or_equal_size(result):
    summary = result[0]["summary"]
    router = SMOKE.d_model * SMOKE.layers  # numbers per expert
    dense = summary[runs.DENSE]["active"]
    assert summary[runs.EIGHT]["active"] == dense + 8 * router
    assert summary[runs.MANY]["active"] == dense + 32 * router
    assert summary[runs.LARGE]["parameters"] == summary[runs.EIGHT]["parameters"] - 8 * router
    wide = summary[runs.WIDE_DENSE]["active"]
    assert summary[runs.WIDE_EIGHT]["active"] == wide + 8 * 2 * router
    assert 2 * dense < wide < 4 * dense, "matrices have four times as many numbers"


def test_the_same_seed_gives_the_same_minibatches(result):
    """So the first losses of all systems are near each other, and differ between seeds."""
    first = {(r["system"], r["seed"]): r["training"][0] for r in result[0]["runs"]}
    assert len(first) == 20
    assert all(loss == pytest.approx(np.log(300), rel=0.1) for loss in first.values())


@pytest.mark.seconds
def test_models_are_stored_and_found_again(result):
    numbers, store = result
    models = sorted((store / "models").iterdir())
    assert len(models) == 20
    times = [path.stat().st_mtime_ns for path in (store / "models").rglob("state.safetensors")]
    with Sweep(jobs=1, progress=False) as sweep:
        sweep.store = store / "elsewhere"
        (store / "elsewhere").mkdir()
        (store / "elsewhere" / "models").symlink_to(store / "models")
        again = experiment.run(SMOKE, sweep=sweep)
    assert times == [p.stat().st_mtime_ns for p in (store / "models").rglob("state.safetensors")]
    for ours, other in zip(numbers["runs"], again["runs"], strict=True):
        assert ours["validation"] == other["validation"]
        assert ours["test"] == other["test"]


def test_where_a_loss_is_reached():
    losses = [5.0, 4.0, 3.0]
    assert runs.reached(losses, [10.0, 20.0, 30.0], 3.5) == pytest.approx(25)
    assert runs.reached(losses, [10.0, 20.0, 30.0], 3.0) == 30
    assert runs.reached(losses, [10.0, 20.0, 30.0], 6.0) == 10
    assert runs.reached(losses, [10.0, 20.0, 30.0], 2.0) is None


def run_of(system, seed, validation, seconds, inference=1.0, loss=3.0):
    return {
        "system": system,
        "seed": seed,
        "validation": validation,
        "tokens": [10.0, 20.0],
        "seconds": seconds,
        "inference": inference,
        "test": {"loss": loss},
    }


def test_the_comparison_is_by_seed():
    by_system = {
        runs.DENSE: [run_of(runs.DENSE, s, [5.0, 4.0], [1.0, 2.0], loss=3 + s) for s in (0, 1)],
        runs.EIGHT: [run_of(runs.EIGHT, s, [4.0, 3.0], [2.0, 4.0], 2.0, 2.5 + s) for s in (0, 1)],
    }
    by_system[runs.WIDE_EIGHT] = by_system[runs.EIGHT]
    by_system[runs.WIDE_DENSE] = [run_of("", s, [5.0, 4.0], [1.0, 2.0], loss=4 + s) for s in (0, 1)]
    ours, wide = experiment.against_dense(by_system).values()
    assert wide["test loss"]["estimate"] == pytest.approx(-1.5), "with the dense one of its width"
    assert ours["test loss"]["estimate"] == ours["test loss"]["low"] == pytest.approx(-0.5)
    assert ours["tokens"]["estimate"] == pytest.approx(2)
    assert ours["seconds"]["estimate"] == pytest.approx(1)
    assert ours["inference"]["estimate"] == pytest.approx(0.5)


def test_a_loss_that_is_not_reached_is_said():
    by_system = {
        runs.DENSE: [run_of(runs.DENSE, 0, [5.0, 4.0], [1.0, 2.0])],
        runs.EIGHT: [run_of(runs.EIGHT, 0, [5.0, 4.5], [1.0, 2.0])],
    }
    (ours,) = experiment.against_dense(by_system).values()
    assert ours["seconds"] is None
    assert ours["seconds reached"] == 0


def test_the_words_follow_the_numbers(result):
    text = report(result[0])
    assert "8 experts" in text
    worse = {"estimate": 0.5, "low": 0.4, "high": 0.6, "level": 0.95}
    assert "they are worse" in loss_sentence("8 experts", {"test loss": worse})
    better = {"estimate": -0.5, "low": -0.6, "high": -0.4, "level": 0.95}
    assert "they are better" in loss_sentence("8 experts", {"test loss": better})
    neither = {"estimate": 0.0, "low": -0.6, "high": 0.4, "level": 0.95}
    assert "cannot be told" in loss_sentence("8 experts", {"test loss": neither})


def test_the_dense_model_of_equal_quality_lies_between_two_that_were_measured():
    dense = [
        run_of(runs.DENSE, 0, [4.0], [1.0], inference=1.0, loss=3.0),
        run_of(runs.HALF, 0, [4.0], [1.0], inference=2.0, loss=2.8),
        run_of(runs.LARGE, 0, [4.0], [1.0], inference=4.0, loss=2.4),
    ]
    assert equal_quality.dense_seconds(2.9, dense) == pytest.approx(1.5)
    assert equal_quality.dense_seconds(2.4, dense) == pytest.approx(4.0)
    assert equal_quality.dense_seconds(2.3, dense) is None
    assert equal_quality.dense_seconds(3.1, dense) is None
    by_system = {run["system"]: [run] for run in dense}
    by_system[runs.EIGHT] = [run_of(runs.EIGHT, 0, [4.0], [1.0], inference=1.5, loss=2.6)]
    by_system[runs.MANY] = [run_of(runs.MANY, 0, [4.0], [1.0], inference=1.5, loss=2.0)]
    ours = equal_quality.equal_quality(by_system)
    assert ours[runs.EIGHT]["ratio"]["estimate"] == pytest.approx(2.0)
    assert ours[runs.MANY] == {
        "ratio": None, "inside": 0, "better than all": 1, "worse than all": 0
    }  # fmt: skip
    assert equal_quality.equal_quality({runs.EIGHT: by_system[runs.EIGHT]}) == {}
    assert equal_quality.equal_quality_table({"equal_quality": {}}) == ""


def test_the_rise_of_the_held_out_loss():
    run = {"validation": [3.0, 2.0, 2.5], "tokens": [10.0, 20.0, 40.0], "epochs": 8.0}
    assert overfitting.rise(run) == pytest.approx(0.5)
    assert overfitting.best_epoch(run) == pytest.approx(4.0)
    above = {"estimate": 0.5, "low": 0.4, "high": 0.6, "level": 0.95}
    below = {"estimate": -0.5, "low": -0.6, "high": -0.4, "level": 0.95}
    assert overfitting.verdict(above) == "overfit more than"
    assert overfitting.verdict(below) == "overfit less than"
    assert overfitting.verdict({**above, "low": -0.1}) == "cannot be told from"


def test_systems_on_two_books_read_only_these():
    spec = runs.spec_of(runs.Config(), "8 experts, two books", 0)["model"]
    assert spec["books"] == ["Gen", "Exod"]
    assert spec["changes"] == runs.spec_of(runs.Config(), runs.EIGHT, 0)["model"]["changes"]
