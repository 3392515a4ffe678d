"""Serving: equal sizes of the systems, and what a row has."""

import json

import pytest

from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.serving import experiment, quality, runs
from moe_np.experiments.serving.report import report
from moe_np.models import decoder_config

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("serving") as sweep:
        return json.loads(to_json(experiment.run(SMOKE, sweep=sweep)))


def test_equal_memory_and_equal_operations(result):
    sizes = {run["system"]: run["bytes"] for run in result["runs"]}
    assert sizes[runs.SPARSE] == sizes[runs.TOTAL] == 4 * 3 * 16 * 16 * 4
    assert sizes[runs.ACTIVE] * 2 == sizes[runs.SPARSE]
    spec = runs.spec_of(SMOKE, runs.SPARSE, 0)
    sparse, dense = (
        decoder_config.architecture(runs.decoder_config(spec, system))
        for system in (runs.SPARSE, runs.ACTIVE)
    )
    assert sparse.k * sparse.d_expert == dense.d_ff


def test_equal_quality_is_between_equal_operations_and_equal_memory(result):
    by_system = {run["system"]: run for run in result["runs"]}
    found = by_system[runs.QUALITY]["quality"]
    assert 1 <= found["factor"] <= 4 and set(found["losses"]) == {quality.MIXTURE, *quality.DENSE}
    bytes_of = {system: run["bytes"] for system, run in by_system.items()}
    assert bytes_of[runs.QUALITY] == pytest.approx(found["factor"] * bytes_of[runs.ACTIVE], rel=0.1)
    assert by_system[runs.SPARSE]["quality"] is None
    assert "times as wide as that of equal operations; the mixture's loss lay" in report(result)


def test_the_width_of_a_loss_is_on_the_line_of_dense_models():
    factors, losses = (1, 2, 4), (5.0, 4.0, 3.5)
    assert quality.factor_at(5.0, factors, losses) == (1.0, True)
    assert quality.factor_at(3.5, factors, losses) == (pytest.approx(4.0), True)
    assert quality.factor_at(4.5, factors, losses) == (pytest.approx(2**0.5), True)
    assert quality.factor_at(3.75, factors, losses) == (pytest.approx(8**0.5), True)
    assert quality.factor_at(3.0, factors, losses) == (4, False)
    assert quality.factor_at(6.0, factors, losses) == (1, False)
    assert quality.factor_at(4.0, factors, (5.0, 4.0, 4.0))[0] == pytest.approx(2)


def test_the_models_are_those_of_the_experiment_with_language_models():
    models = quality.models_of(runs.Config().language_model, 1)
    hidden = {system: spec["changes"]["hidden"] for system, spec in models.items()}
    assert list(hidden.values()) == [128, 256, 512, 1024]
    assert models[quality.MIXTURE]["changes"]["experts"] == runs.Config().experts == 8
    assert {spec["changes"]["seed"] for spec in models.values()} == {1}


def test_a_row_per_arrivals_and_load(result):
    for ours in result["summary"].values():
        rows = [(row["arrivals"], row["load"]) for row in ours]
        assert rows == [(kind, load) for kind in runs.ARRIVALS for load in SMOKE.loads]
        for row in ours:
            assert row["p99"]["mean"] >= row["p50"]["mean"] >= row["wait p50"]["mean"] > 0
            assert 1 <= row["batch"]["mean"] <= SMOKE.most
            assert row["throughput"]["mean"] > 0


def test_the_rate_is_the_load_times_that_of_one_at_a_time(result):
    for run in result["runs"]:
        slow, fast = run["rows"][:2]
        assert fast["rate"] == pytest.approx(4 * slow["rate"])


def test_the_report_has_all_systems(result):
    text = report(result)
    assert all(text.count(f"| {system} |") == 4 for system in runs.SYSTEMS)
