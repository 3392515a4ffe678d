"""Serving: equal sizes of the systems, and what a row has."""

import json

import pytest

from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.serving import experiment, runs
from moe_np.experiments.serving.report import report
from moe_np.models import decoder_config

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result():
    with Sweep(jobs=1, progress=False) as sweep:
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
