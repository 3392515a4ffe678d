"""The rows of Tables 7 and 8: equal operations, the same minibatches, and words that follow the
numbers."""

import numpy as np
import pytest

from moe_np.accounting import published
from moe_np.experiments.common import trained_tree
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.shazeer2017_language import experiment, runs
from moe_np.experiments.shazeer2017_language.report import report, verdict, what_was_seen

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("shazeer2017_language") as sweep:
        return experiment.run(SMOKE, sweep=sweep), sweep.store


def test_operations_are_equal_but_for_the_gate():
    D = 512
    assert runs.operations(runs.WIDE, D) == runs.operations(runs.FOUR_LSTM, D) == 32 * D * D
    for system in (runs.LSTM, runs.FOUR_LSTM, runs.WIDE, runs.SMALLEST, runs.LARGEST):
        name = runs.ROWS.get(system, system)
        millions = runs.PAPER["table7"][name][1]
        assert runs.operations(system, D) / 1e6 == pytest.approx(millions, abs=0.06)


def test_parameters_are_those_of_the_operations(result):
    """A parameter of a dense model is used once per token; biases and gates come to it."""
    D = SMOKE.d_model
    biases = {runs.LSTM: 16 * D, runs.FOUR_LSTM: 16 * D, runs.WIDE: 17 * D}
    for system, ours in result[0]["summary"].items():
        if system in biases:
            wanted = runs.operations(system, D) + biases[system]
        else:
            E = runs.EXPERTS[system]
            gate = D * (runs.GROUPS + E) if system == runs.HIERARCHICAL else 2 * D * E
            wanted = 16 * D * D + 8 * D + E * (4 * D * D + 3 * D) + gate
        assert ours["parameters"] == wanted, system


def test_the_published_numbers_are_those_of_the_accounting():
    for name in ("moe-4", "moe-32", "moe-256", "moe-256-h", "moe-1024-h", "moe-4096-h"):
        table = runs.PAPER["table7"][name.replace("moe", "MoE")]
        printed = published.MODELS[name].published
        assert float(printed["total"].removesuffix("M")) == table[2]
        assert float(printed["operations"].removesuffix("M")) == table[1]


def test_models_are_stored_and_found_again(result):
    numbers, store = result
    folders = sorted((store / "models").iterdir())
    assert len(folders) == 2 * len(runs.SYSTEMS)
    keys = {trained_tree.key(s["model"], runs.training_of) for s in experiment.specs(SMOKE)}
    assert keys == {folder.name for folder in folders}
    times = [path.stat().st_mtime_ns for path in (store / "models").rglob("state.safetensors")]
    stored = list((store / "shazeer2017_language.runs").glob("*.json"))
    assert len(stored) == len(folders)
    for path in stored:
        path.unlink()
    with Sweep(store, jobs=1, progress=False) as sweep:
        again = experiment.run(SMOKE, sweep=sweep)
    assert times == [p.stat().st_mtime_ns for p in (store / "models").rglob("state.safetensors")]
    assert again["runs"] == numbers["runs"]


def test_the_balance_is_that_of_the_test_books(result):
    for ours in result[0]["summary"].values():
        if ours["balance"]:
            assert set(ours["balance"]) == {"evaluation", "with noise"}
    evaluation = result[0]["summary"][runs.SMALLEST]["balance"]["evaluation"]
    assert evaluation["CV(Load)"]["mean"] == 0
    assert evaluation["max/mean of the load"]["mean"] == 1
    hierarchical = result[0]["summary"][runs.HIERARCHICAL]["balance"]
    assert hierarchical["evaluation"] == hierarchical["with noise"]


def results_of(losses):
    return {
        system: [{"test": {"loss": loss}} for loss in of_seeds]
        for system, of_seeds in losses.items()
    }


def test_differences_and_slope_are_by_seed():
    losses = {system: [5 - 0.1 * i, 4 - 0.1 * i, 6 - 0.1 * i] for i, system in enumerate(runs.FLAT)}
    slope = experiment.slope(results_of(losses))
    assert slope["estimate"] == pytest.approx(-0.1)
    assert slope["high"] == pytest.approx(-0.1)
    assert experiment.slope(results_of({runs.LARGEST: [1.0]})) is None
    losses[runs.WIDE] = [5.0, 4.0, 6.0]
    pairs = {
        (d["system"], d["against"]): d["loss"] for d in experiment.differences(results_of(losses))
    }
    assert pairs[runs.LARGEST, runs.WIDE]["estimate"] == pytest.approx(-0.3)
    assert pairs[runs.LARGEST, runs.SMALLEST]["high"] == pytest.approx(-0.3)
    assert (runs.HIERARCHICAL, runs.LARGEST) not in pairs


def test_the_words_follow_the_numbers(result):
    text = report(result[0])
    assert "39.7 (0.861)" in text
    assert f"{np.log(39.7 / 45) / 3:.4f}" in text
    assert "better" in verdict({"low": -0.2, "high": -0.1})
    assert "worse" in verdict({"low": 0.1, "high": 0.2})
    assert "cannot be told" in verdict({"low": -0.1, "high": 0.2})
    assert "one seed" in verdict({"low": None, "high": None})
    assert what_was_seen({"differences": [], "slope": None, "paper": runs.PAPER}) == ""
