"""An uneven load: what is computed and sent by which rank, the model, the program under MPI."""

import json

import numpy as np
import pytest

from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.imbalance import experiment, runs, timed_steps
from moe_np.experiments.imbalance.report import gains, report
from moe_np.parallel import in_process, launch, layer_step
from moe_np.parallel.cost import Machine

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("imbalance") as sweep:
        return json.loads(to_json(experiment.run(SMOKE, sweep=sweep)))


def test_the_load_of_the_ranks_is_that_of_the_skew(result):
    even, skewed = (result["runs"][0]["rows"][i]["load"] for i in (0, 1))
    assert even == skewed == [64 * 2]  # of one rank, whatever the skew
    of_two = {s: [row["busiest"] for row in rows] for s, rows in result["summary"].items()}
    assert of_two[runs.ONE] == [1, 1]
    assert of_two[runs.TWO][0] < 0.6 and of_two[runs.TWO][1] > 0.9
    assert of_two[runs.TWO_PACKED][1] < 0.6
    assert of_two[runs.FOUR][1] > 0.8


def test_bytes_of_the_busiest_rank(result):
    spec = runs.spec_of(SMOKE, runs.TWO, 0)
    given, placed, load = timed_steps.problem_of(spec, 8.0)
    ranks = [layer_step.on_a_rank(given, rank, 2, placed) for rank in range(2)]
    exchanged = {e[0].name: e for e in in_process.exchanges(ranks, [None] * 2)}
    found = dict(result["summary"][runs.TWO][1]["exchanges"])
    assert set(found) == set(exchanged)
    crossing = max(exchanged["dispatch"][1].counts[0], exchanged["dispatch"][0].counts[1])
    assert found["dispatch"] == crossing * 8 * 4
    assert load.sum() == 2 * 64 and placed.rank[0] == 0


def test_every_rank_and_every_part_of_a_step_is_timed(result):
    for system, rows in result["summary"].items():
        assert [row["skew"] for row in rows] == [0.0, 8.0]
        for row in rows:
            assert len(row["compute"]) == runs.RANKS[system] and min(row["compute"]) > 0
            assert max(row["compute"]) <= row["slowest"] <= sum(row["compute"]) * (1 + 1e-9)
            assert "measured" not in row


def test_the_model_adds_the_slowest_rank_and_the_messages():
    row = {"slowest": 2.0, "exchanges": [["counts", 0], ["dispatch", 10**9]]}
    machine = Machine(alpha=1e-3, bandwidth=1e9, node=1)
    assert experiment.modelled(row, 1, machine) == 2.0
    assert experiment.modelled(row, 2, machine) == pytest.approx(2.0 + 2e-3 + 1.0)
    assert experiment.modelled(row, 4, machine) == pytest.approx(2.0 + 6e-3 + 1.0)


def test_the_machine_is_that_of_the_messages():
    seconds = {"counts": 1e-4, "dispatch": 1e-4 + 0.01, "combine": 1e-4 + 0.02, "router w": 1.0}
    exchanges = [["counts", 64], ["dispatch", 10**7], ["combine", 10**7], ["router w", 9]]
    machine, is_measured = experiment.machine_of(
        {runs.TWO: [{"exchanges": exchanges, "messages": seconds}]}
    )
    assert is_measured and machine.alpha == 1e-4
    assert machine.bandwidth == pytest.approx((1e9 + 0.5e9) / 2)
    assert experiment.machine_of({runs.TWO: [{}]}) == (experiment.UNMEASURED, False)


def test_the_report_says_from_where_two_ranks_are_slower(result):
    assert "assumed, because nothing was measured" in report(result)
    for system, times in {runs.ONE: (4.0, 4.0), runs.TWO: (2.0, 5.0)}.items():
        result["model"][system] = times
    assert "2.00 times as fast as one at skew 0, and 0.80 times at skew 8" in report(result)
    assert "From skew 8 on, two ranks are slower than one." in report(result)


def test_measured_gains_are_paired_by_seed_and_have_an_interval(result):
    for run in result["runs"]:
        speed = {runs.ONE: 1, runs.TWO: 2, runs.TWO_PACKED: 1}.get(run["system"])
        for row in run["rows"]:
            seconds = 4.0 * 10 ** run["seed"] * (1 + 0.1 * (run["seed"] if speed == 2 else 0))
            row["measured"] = speed and {"seconds": seconds / speed}
    gain = gains(result, runs.TWO)[0]
    assert gain.estimate == pytest.approx(np.log(2) - np.log(1.1) / 2)
    assert gain.low < gain.estimate < gain.high
    assert gains(result, runs.FOUR)[0].low is None
    text = report(result)
    assert "Two ranks do a step 1.91 [" in text and "95 % t interval" in text
    assert "**Power.**" in text


@pytest.mark.mpi
def test_two_ranks_are_measured_under_mpi():
    if launch.find()[0] is None:
        pytest.skip(launch.find()[1])
    config = runs.Config(tokens=64, d_model=8, hidden=16, skews=(0.0, 8.0), repeats=1)
    run = runs.run_one(runs.spec_of(config, runs.TWO, 0))
    for row in run["rows"]:
        of_step = row["measured"]
        assert of_step["seconds"] > 0
        parts = np.array([of_step[name] for name in ("compute", "wait", "message")])
        assert parts.shape == (3, 2) and parts.min() >= 0
        assert parts.sum(axis=0).max() == pytest.approx(of_step["seconds"])
        assert set(of_step["messages"]) == {name for name, _ in row["exchanges"]}
    summary = runs.summarise([run, run])
    assert summary[0]["measured"] == run["rows"][0]["measured"]["seconds"]
    assert experiment.machine_of({runs.TWO: summary})[1]
