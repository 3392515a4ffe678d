"""The comparison of students: equal operations, shares only of a gain, words and numbers."""

import pytest

from moe_np.experiments.distillation import experiment
from moe_np.experiments.distillation.experiment import (
    CONTROL,
    DENSE,
    DENSE_LONG,
    TEACHER,
    TEACHER_LONG,
)
from moe_np.experiments.distillation.report import helps, report, verdict

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("distillation") as sweep:
        return experiment.run(SMOKE, sweep=sweep)


def test_students_of_the_table_have_the_operations_of_the_teacher(result):
    width = {system: ours["active width"] for system, ours in result["summary"].items()}
    equal = (TEACHER, DENSE, "soft targets", "copied weights", "and hard targets", CONTROL)
    assert {width[system] for system in equal} == {16}
    assert width["merged experts"] == width["one expert per token"] == 8


def test_all_have_equally_many_validations(result):
    numbers = {run["system"]: len(run["validation"]) for run in result["runs"]}
    assert {numbers.pop(system) for system in (TEACHER_LONG, DENSE_LONG)} == {4}
    assert set(numbers.values()) == {2}
    losses = {run["system"]: run["validation"] for run in result["runs"]}
    assert len({tuple(loss) for loss in losses.values()}) == 10


def systems(teacher):
    losses = {DENSE: [4.0, 4.2], TEACHER: teacher, "soft targets": [3.9, 4.1]}
    return {s: [{"validation": [9.0, loss]} for loss in of] for s, of in losses.items()}


def test_there_are_shares_only_of_a_gain():
    found = experiment.shares(systems([3.5, 3.7]))
    assert found["soft targets"]["mean"] == pytest.approx(0.2)
    assert experiment.shares(systems([3.5, 4.3])) == {}
    assert experiment.shares({DENSE: systems([1, 1])[DENSE]}) == {}
    worse = systems([3.5, 3.7]) | {"soft targets": [{"validation": [v]} for v in (3.9, 4.3)]}
    assert experiment.shares(worse) == {}, "of a student that keeps nothing"


def test_copies_are_compared_with_equally_long_training():
    runs = systems([3.5, 3.7])
    runs[CONTROL] = runs["and hard targets"] = [{"validation": [loss]} for loss in (3.4, 3.6)]
    assert CONTROL not in experiment.against_dense(runs)
    assert experiment.shares(runs).keys() == {"soft targets"}
    runs[DENSE_LONG] = [{"validation": [loss]} for loss in (3.3, 3.5)]
    runs[TEACHER_LONG] = [{"validation": [loss]} for loss in (2.9, 3.1)]
    found = experiment.against_dense(runs)
    assert found[CONTROL]["estimate"] == pytest.approx(0.1)
    assert found[TEACHER_LONG]["estimate"] == pytest.approx(-0.4)
    assert experiment.shares(runs).keys() == {"soft targets"}, "the control is worse than dense"
    control = experiment.against_control(runs)
    assert control["and hard targets"]["estimate"] == 0


def test_the_words_follow_the_numbers(result):
    text = report(result)
    assert "-1.631" in text and "table 7" in text
    assert verdict({"low": -2, "high": -1}) == "it keeps something of the gain"
    assert verdict({"low": 1, "high": 2}) == "it is worse than dense"
    assert verdict({"low": -1, "high": 2}) == "no difference to dense is told"
    assert helps({"estimate": -2, "low": -3, "high": -1}).startswith("soft targets help")
    assert helps({"estimate": 2, "low": 1, "high": 3}).startswith("soft targets harm")
    assert helps({"estimate": 0, "low": -1, "high": 3}).startswith("no help")
