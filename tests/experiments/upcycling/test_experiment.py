"""The comparison of upcycled decoders: where they begin, and words that follow the numbers."""

import pytest

from moe_np.experiments.upcycling import experiment
from moe_np.experiments.upcycling.report import report, verdict

SMOKE = experiment.SMOKE["config"]


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("upcycling") as sweep:
        return experiment.run(SMOKE, sweep=sweep)


def test_an_upcycled_model_begins_where_the_dense_one_ended(result):
    first = {system: ours["first"] for system, ours in result["summary"].items()}
    for system in (experiment.DENSE, experiment.UPCYCLED, experiment.KEPT):
        assert abs(first[system]["mean"]) < 1e-5
    assert abs(first["half redrawn"]["mean"]) > 1e-5
    assert abs(first[experiment.SWITCH]["mean"]) > 1e-5


def test_all_systems_see_the_same_number_of_tokens(result):
    assert {run["steps"][-1] for run in result["runs"]} == {8}
    dense = [r for r in result["runs"] if r["system"] == experiment.DENSE]
    assert dense[0]["steps"] == [4, 6, 8]
    assert dense[0]["validation"] != dense[1]["validation"]


def run_of(system, steps, validation):
    return {"system": system, "steps": steps, "validation": validation}


def test_when_experts_anew_pass():
    steps = [4, 6, 8]
    ours = [run_of(experiment.UPCYCLED, steps, [4.0, 3.0, 2.5])]
    anew = [run_of(experiment.ANEW, [2, *steps], [6.0, 5.0, 2.9, 2.4])]
    by_system = {experiment.UPCYCLED: ours, experiment.ANEW: anew}
    assert experiment.passes(by_system, SMOKE) == pytest.approx(0.5)
    anew[0]["validation"][-1] = 2.6
    assert experiment.passes(by_system, SMOKE) is None
    found = experiment.differences(by_system, SMOKE)
    name = f"{experiment.UPCYCLED} less {experiment.ANEW}, equal further updates"
    assert found[name]["estimate"] == pytest.approx(2.5 - 5.0)


def test_the_words_follow_the_numbers(result):
    assert "Komatsuzaki" in report(result)
    assert verdict({"estimate": -1, "low": -2, "high": -0.5}).startswith("better")
    assert verdict({"estimate": 1, "low": 0.5, "high": 2}).startswith("worse")
    assert verdict({"estimate": 0, "low": -1, "high": 1}).startswith("no difference can be told")
    assert verdict({"estimate": 0, "low": None, "high": None}) == "one seed cannot tell"
