"""The bench: its schedule within a budget, contestants that leave, Ctrl-C."""

import pytest

from moe_np.experiments.layer_speed import bench
from moe_np.experiments.layer_speed.floor import Peaks
from moe_np.experiments.layer_speed.problem import Shape
from tests.support.bench import KEYS, Machine, run_on

SMALL, MIDDLE, LARGE = Shape(64, 8, 4), Shape(640, 8, 4), Shape(6400, 8, 4)


# --- the schedule ---------------------------------------------------------------------------------


def test_a_fast_machine_measures_everything_in_every_round(monkeypatch):
    monkeypatch.setattr(bench, "SHAPES", (LARGE, SMALL, MIDDLE))
    result = run_on(Machine(0.01), monkeypatch)
    assert result.facts.rounds == {LARGE: 5, SMALL: 5, MIDDLE: 5}
    assert result.facts.left_out == [] and not result.facts.interrupted
    assert [row["tokens"] for row in result.rows] == [6400] * 4 + [64] * 4 + [640] * 4


@pytest.mark.parametrize("slowness", [1.0, 2.0, 4.0, 20.0])
def test_a_slow_machine_ends_within_the_budget(slowness, monkeypatch):
    monkeypatch.setattr(bench, "SHAPES", (SMALL, MIDDLE, LARGE))
    lines = []
    result = run_on(Machine(slowness), monkeypatch, budget=100.0, progress=lines.append)
    facts = result.facts
    assert facts.seconds <= 100.0
    assert facts.rounds[SMALL] >= facts.rounds.get(LARGE, 0)
    assert set(facts.rounds) | set(facts.left_out) == {SMALL, MIDDLE, LARGE}
    assert (LARGE in facts.left_out) == (slowness > 1)
    assert any("no time for" in line for line in lines)
    assert ("6400 tokens, d 8" in bench.what_was_done(facts)) == (LARGE in facts.left_out)


def test_shapes_that_are_given_are_measured_whatever_the_budget(monkeypatch):
    result = run_on(Machine(100.0), monkeypatch, budget=1.0, shapes=[LARGE, SMALL, LARGE])
    assert result.facts.rounds == {LARGE: 1, SMALL: 1} and result.facts.left_out == []


def test_after_an_interruption_the_result_has_what_was_measured(monkeypatch):
    machine = Machine(interrupted_at=8.0)
    result = run_on(machine, monkeypatch, shapes=[SMALL, MIDDLE, LARGE])
    assert result.facts.interrupted
    assert {(row["tokens"], row["mode"]) for row in result.rows} >= {(64, "forward")}
    assert 6400 not in {row["tokens"] for row in result.rows}
    assert "Interrupted." in bench.table(result)
    nothing = run_on(Machine(interrupted_at=0.0), monkeypatch)
    assert nothing.rows == [] and nothing.facts.rounds == {}
    assert "0 shapes" in bench.what_was_done(nothing.facts)


def test_rows_have_the_least_time_and_the_ratios(monkeypatch):
    result = run_on(Machine(), monkeypatch, shapes=[SMALL])
    assert all(set(row) == KEYS for row in result.rows) and len(result.rows) == 4
    assert {row["ratio_dense"] for row in result.rows} == {1.0}
    least = bench.floor("relu", SMALL, False, Peaks(1e11, 1e10))
    assert result.rows[0]["seconds"] == pytest.approx(0.064)
    assert result.rows[0]["ratio_floor"] == pytest.approx(0.064 / least)


# --- contestants ----------------------------------------------------------------------------------


def test_contestants_that_differ_are_named():
    reference = {"out": 1.0, "x": 2.0}
    shape = Shape(1, 1, 1)
    close = {"moe_np": reference, "torch_loop": {"out": 1.001, "x": 2.0}}
    bench.check_same("relu", shape, close)
    different = {"moe_np": reference, "torch_loop": {"out": 1.0, "x": -2.0}}
    with pytest.raises(ArithmeticError, match="torch_loop: another x than moe_np"):
        bench.check_same("relu", shape, different)


def test_a_peer_that_dies_is_left_out_and_we_are_not():
    class Runner:
        def ask(self, name, *message):
            if name in dying:
                raise ChildProcessError(f"{name}: its process ended with status -9")
            return 1.0

    names, lines, dying = ["moe_np", "torch_loop", "dense_numpy"], [], ["torch_loop"]
    answers = bench.ask_all(Runner(), names, lines.append, "time")
    assert answers == {"moe_np": 1.0, "dense_numpy": 1.0}
    assert names == ["moe_np", "dense_numpy"]
    assert lines[0].startswith("torch_loop: its process ended with status -9")
    dying = ["moe_np"]
    with pytest.raises(ChildProcessError, match="moe_np"):
        bench.ask_all(Runner(), names, lines.append, "time")
