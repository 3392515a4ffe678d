"""Offloading: traces, their statistics, speeds, and words that follow the numbers."""

import json

import numpy as np
import pytest

from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.offloading import experiment, runs
from moe_np.experiments.offloading.report import report
from moe_np.models import checkpoints, decoder
from moe_np.serving import preadv_reader
from tests.support.decoders import SMALL


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("offloading") as sweep:
        return json.loads(to_json(experiment.run(**experiment.SMOKE, sweep=sweep)))


def test_the_bound_is_a_bound(result):
    for ours in result["summary"].values():
        rates = [[r["mean"] for r in ours["hit_rates"][policy]] for policy in runs.POLICIES]
        assert (np.array(rates[2]) >= np.maximum(rates[0], rates[1])).all()
        assert all(np.diff(rate) > 0 for rate in rates), "more places, more hits"


def test_a_uniform_trace_hits_by_chance(result):
    ours = result["summary"][runs.UNIFORM]
    assert ours["by_chance"] == 2 / 32
    assert ours["reuse"]["mean"] == pytest.approx(2 / 32, abs=0.03)
    assert ours["hit_rates"]["lru"][1]["mean"] == pytest.approx(8 / 32, abs=0.06)
    assert ours["speed"] is None


def test_speeds_have_their_memory(result):
    speed = result["summary"][runs.TRAINED]["speed"]
    assert [row["places"] for row in speed] == [2, 8, 32]
    size = speed[0]["experts_bytes"]
    assert [row["experts_bytes"] for row in speed] == [size, 4 * size, 16 * size]
    assert all(row["tokens_per_second"]["mean"] > 0 for row in speed)
    assert all((row["cold"] is not None) == preadv_reader.HAS_FADVISE for row in speed)


def test_without_posix_fadvise_there_are_no_cold_reads(result, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "HAS_FADVISE", False)
    params = decoder.init(np.random.default_rng(0), SMALL)
    checkpoints.save(tmp_path, SMALL, params)
    row = runs.speed_of(tmp_path, 1, np.array([[1, 2]]), 2)
    assert row["cold"] is None and row["tokens_per_second"] > 0
    trained = [run for run in result["runs"] if run["system"] == runs.TRAINED]
    summary = runs.summarise([{**run, "speed": [row]} for run in trained])
    assert summary["speed"][0]["cold"] is None
    alone = {**result, "summary": {runs.TRAINED: {**summary, "places": [2]}}}
    (line,) = [line for line in report(alone).splitlines() if line.startswith("| 1 |")]
    assert line.split(" | ")[3] == "–"


def test_reuse_by_hand():
    trace = np.array([[0, 1], [1, 2], [3, 4], [4, 3]])
    assert runs.reuse(trace) == pytest.approx((1 + 0 + 2) / 6)


def test_a_trace_has_every_token_once_in_its_order():
    params = decoder.init(np.random.default_rng(0), SMALL)
    tokens = np.random.default_rng(1).integers(0, SMALL.vocabulary, 13)
    traces = runs.traces_of(params, SMALL, tokens, 32)
    _, cache = decoder.forward(params, tokens[None, :-1], SMALL)
    assert traces.shape == (2, 12, 2)
    routing = cache.blocks[1].mixture.routing
    for n in range(12):
        assert set(traces[1, n]) == set(routing.expert[routing.token == n])


def test_the_reading_follows_the_hits(result):
    ours = result["summary"][runs.TRAINED]["hit_rates"]
    ours["lru"] = [{"mean": 0.9, "sd": None}, {"mean": 0.1, "sd": None}]
    ours["lfu"] = [{"mean": 0.5, "sd": None}, {"mean": 0.5, "sd": None}]
    assert "LRU has more hits than LFU at 1 of 2 sizes" in report(result)
