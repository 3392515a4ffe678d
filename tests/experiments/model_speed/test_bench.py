"""The bench of whole models: the fastest variant, the budget, contestants that leave, Ctrl-C."""

import pytest

from moe_np.experiments.layer_speed.floor import Peaks
from moe_np.experiments.model_speed import bench
from moe_np.experiments.model_speed.workload import Workload, floor
from tests.support.model_bench import KEYS, Machine, run_on

TRAIN = Workload("train", 64, 2, 16, 2, 4, 256)
GENERATE = Workload("generate", 64, 2, 8, 2, 4, 256)


def by_impl(rows, what):
    return {row["impl"]: row for row in rows if row["what"] == what}


def test_the_fastest_variant_of_each_counts(monkeypatch):
    rows = run_on(Machine(), monkeypatch, workloads=[TRAIN, GENERATE]).rows
    assert len(rows) == 8 and all(set(row) == KEYS for row in rows)
    train = by_impl(rows, "train")
    assert list(train) == ["moe_np", "torch", "transformers", "dense"]
    assert train["torch"]["variant"] == "compile" and train["torch"]["ratio_moe_np"] == 1.5
    assert train["transformers"]["variant"] == "grouped_mm"
    assert train["dense"]["experts"] == 1 and train["moe_np"]["experts"] == 4
    generate = by_impl(rows, "generate")
    assert generate["torch"]["variant"] == "eager"
    assert generate["transformers"]["variant"] == "batched_mm"
    row = generate["moe_np"]
    assert row["seconds"] == pytest.approx(16e-4) and row["peak_bytes"] == 1 << 20
    assert row["tokens_per_second"] == pytest.approx(16 / row["seconds"])
    assert row["ratio_floor"] == pytest.approx(16e-4 / floor(GENERATE, Peaks(1e11, 1e10)))


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    lines = []
    names = ["moe_np", "dense"]
    result = run_on(Machine(), monkeypatch, names, workloads=[TRAIN], progress=lines.append)
    assert [row["impl"] for row in result.rows] == names
    assert "torch is not installed, and left out" in lines
    assert "transformers (not installed)" in bench.what_was_done(result.facts)
    table = bench.table(result)
    assert "| train | 64 | 2 | 16 | moe_np |" in table and "a machine" in table


@pytest.mark.parametrize("slowness", [1.0, 10.0, 60.0, 300.0, 2000.0])
def test_it_ends_within_five_minutes(slowness, monkeypatch):
    machine = Machine(slowness)
    result = run_on(machine, monkeypatch)
    assert machine.now == result.facts.seconds < 300
    left_out = bench.what_was_done(result.facts)
    assert ("train, d 512" in left_out) == (slowness > 1)
    assert bool(by_impl(result.rows, "train")) == (slowness < 2000)


def test_who_does_not_answer_is_left_out(monkeypatch):
    lines = []
    machine = Machine(hanging=["torch compile"])
    result = run_on(machine, monkeypatch, progress=lines.append)
    assert any(line.startswith("torch compile: no answer in") for line in lines)
    assert by_impl(result.rows, "train")["torch"]["variant"] == "eager"
    assert machine.now < 300


@pytest.mark.parametrize("how", ["failing", "dying"])
def test_who_fails_is_left_out_and_we_are_not(how, monkeypatch):
    gone = {how: ["torch compile", "transformers eager"]}
    result = run_on(Machine(**gone), monkeypatch, workloads=[TRAIN])
    assert by_impl(result.rows, "train")["torch"]["variant"] == "eager"
    assert len(result.facts.left_out) == 2
    with pytest.raises(ChildProcessError, match="moe_np"):
        run_on(Machine(**{how: ["moe_np"]}), monkeypatch, workloads=[TRAIN])


def test_contestants_that_differ_are_named(monkeypatch):
    machine = Machine()
    machine.different = ["dense"]
    run_on(machine, monkeypatch, workloads=[TRAIN])
    machine.different = ["torch eager"]
    with pytest.raises(ArithmeticError, match="torch eager: another result than moe_np for train"):
        run_on(machine, monkeypatch, workloads=[TRAIN])


def test_after_an_interruption_the_result_has_what_was_measured(monkeypatch):
    result = run_on(Machine(interrupted_at=0.2), monkeypatch, workloads=[TRAIN, GENERATE])
    assert result.facts.interrupted and "Interrupted." in bench.table(result)
    assert by_impl(result.rows, "train") and not by_impl(result.rows, "generate")
    early = run_on(Machine(interrupted_at=0.0), monkeypatch)
    assert early.rows == [] and "Interrupted." in bench.what_was_done(early.facts)
