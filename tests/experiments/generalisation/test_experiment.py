"""Claims, cells and verdicts of generalisation, and one run."""

import json
import math

import numpy as np
import pytest

from moe_np.experiments.common.controlled_claims import (
    CASE,
    MUST_FAIL,
    MUST_HOLD,
    came_out,
    verdict_with_controls,
)
from moe_np.experiments.common.decisions import VERDICTS
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.generalisation import article_claims, case_measures, experiment, runs
from moe_np.experiments.generalisation.article_claims import CLAIMS
from moe_np.experiments.generalisation.report import report, section
from moe_np.experiments.generalisation.runs import Cell

SPEC = runs.spec_of(
    runs.Config(cases=40, steps=12, batch=20), Cell("vowels", "noisy top-2 of 8"), 0
)


@pytest.fixture(scope="module")
def result(smoke_sweep):
    options = {**experiment.SMOKE, "only": ("noise", "sharing")}
    with smoke_sweep("generalisation") as sweep:
        return json.loads(to_json(experiment.run(sweep=sweep, **options)))


def test_every_claim_has_cases_and_both_controls():
    for claim in CLAIMS.values():
        roles = [case.role for case in claim.cases]
        assert roles.count(MUST_HOLD) == roles.count(MUST_FAIL) == 1
        assert roles.count(CASE) >= 2
        assert claim.source and claim.reason and claim.case
    assert sum(len(claim.cases) for claim in CLAIMS.values()) == article_claims.INTERVALS


def test_a_run_is_the_same_every_time_and_takes_the_best_learning_rate():
    first, second = (runs.run_one(SPEC) for _ in range(2))
    seconds = first.pop("seconds"), second.pop("seconds")
    assert first == second and min(seconds) > 0
    assert first["points"][-1] == 12 and len(first["testing"]) == len(first["points"])
    alone = [runs.run_one({**SPEC, "rates": [rate]}) for rate in SPEC["rates"]]
    least = [min(run["validation"]) for run in alone]
    assert first["rate"] == SPEC["rates"][int(np.argmin(least))]
    assert min(first["validation"]) == min(least)
    assert first["overfit"] == alone[1]["overfit"] >= 0


def test_the_best_parameters_are_those_of_the_least_validation_loss():
    run = runs.run_one(SPEC)
    at = int(np.argmin(run["validation"]))
    assert run["test"] == run["testing"][at]


def test_steps_to_a_level_are_interpolated():
    run = {"points": [5, 10, 20], "validation": [2.0, 1.0, 1.5]}
    assert runs.steps_to(run, 1.5) == 7.5
    assert runs.steps_to(run, 2.5) == 5 and runs.steps_to(run, 0.5) == 20


def test_the_ratio_of_times_is_taken_at_the_level_of_the_worse():
    slow = {"points": [5, 10], "validation": [2.0, 1.0], "operations": 3}
    quick = {"points": [5, 10], "validation": [1.0, 0.0], "operations": 1}
    ratio = case_measures.log_time_ratio("operations")
    assert ratio(slow, quick) == pytest.approx(math.log(10 * 3 / 5))
    assert ratio(quick, slow) == -ratio(slow, quick)


def test_doublings_of_the_data():
    amounts = [{"cases": n, "test": loss} for n, loss in ((100, 2.0), (400, 1.0), (1600, 0.5))]
    for level, doublings in ((1.0, 0), (1.5, -1), (0.75, 1), (2.5, -2), (0.1, 2)):
        assert case_measures.doublings(*amounts, {"test": level}) == pytest.approx(doublings)


def test_measures_are_differences_of_runs():
    a, b, c, d = ({"test": t, "noisy": n} for t, n in ((1, 5), (2, 3), (3, 8), (7, 7)))
    assert case_measures.less("test")(a, b) == -1
    assert case_measures.less("noisy", "test")(a, b) == 4 - 1
    assert case_measures.less("noisy", "test", "test")(a, b) == 4 - 0
    assert case_measures.less_twice("test")(a, b, c, d) == -1 - -4


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ({"top-2 of 8": 1.0, "at random": 2.0}, "not supported"),
        ({"top-2 of 8": 3.0, "at random": 2.0}, "holds"),
        ({"top-2 of 8": 3.0, "at random": 1.0}, "cannot be told"),
        ({"top-2 of 8": 3.0, "at random": 2.0, article_claims.ANEW: 2.0}, "cannot be told"),
    ],
)
def test_controls_decide_whether_anything_can_be_told(losses, verdict):
    claim = CLAIMS["against dense"]
    noise = 1e-3 * np.random.default_rng(0).normal(size=(len(experiment.SYSTEMS), 16))
    made = {}
    for i, cell in enumerate(experiment.cells_of(["against dense"])):
        made[cell] = [{"test": losses.get(cell.system, 1.0) + e} for e in noise[i % len(noise)]]
    assert experiment.decided(claim, made)["verdict"] == verdict


def decision(role, verdict):
    return {"case": f"a {role}", "role": role, "verdict": verdict}


def test_a_control_that_must_fail_has_to_be_not_supported():
    decisions = [decision(CASE, "holds"), decision(MUST_HOLD, "holds")]
    for verdict, whole in (
        ("not supported", (True, "holds")),
        ("cannot be told", (False, "cannot be told")),
        ("holds", (False, "cannot be told")),
    ):
        told = [*decisions, decision(MUST_FAIL, verdict)]
        assert (came_out(told), verdict_with_controls(told)) == whole


def test_the_report_says_which_control_did_not_come_out():
    values = {"n": 9, "effect": 0.0, "detectable": 0.1, "level": 0.95, "estimate": 0.0}
    bounds = {CASE: (-0.01, 0.01), MUST_HOLD: (-0.01, 0.01), MUST_FAIL: (-0.2, 0.2)}
    decisions = [
        {**decision(role, word), **values, "low": bounds[role][0], "high": bounds[role][1]}
        for role, word in (
            (CASE, "not supported"),
            (MUST_HOLD, "not supported"),
            (MUST_FAIL, "cannot be told"),
        )
    ]
    text = section(CLAIMS["against dense"], decisions)
    assert "Verdict: cannot be told." in text
    assert "must hold: a must hold (not supported) and" in text
    assert "must fail: a must fail (cannot be told). Without it it is not supported for a c" in text


def test_claims_share_their_runs():
    cells = experiment.cells_of(experiment.SYSTEMS)
    assert len(cells) == len(set(cells))
    specs = experiment.specs(seeds=1)
    assert len(specs) == len(cells)
    assert len(experiment.specs(seeds=1, only=("noise",))) == 14


def test_the_seeds_begin_where_the_config_says():
    seeds = {spec["seed"] for spec in experiment.specs(seeds=3, only=("noise",))}
    assert seeds == {100, 101, 102}


def test_the_report_says_power_and_effect_and_follows_the_numbers(result):
    text = report(result)
    assert set(result["claims"]) == {"noise", "sharing"}
    assert "| would hold in 80 % of cases from |" in text
    assert "Bonferroni" in text and "**Memory.**" in text
    assert "99.95 % interval" in text and text.count("*must fail: ") == 2
    assert text.count("Sensitivity, the verdict with another smallest difference: with ") == 2
    answer = result["claims"]["noise"]
    assert answer["verdict"] in VERDICTS and answer["decisions"][0]["effect"] is None


def test_the_report_says_what_another_smallest_difference_would_change():
    claim = CLAIMS["against dense"]
    noise = 1e-4 * np.random.default_rng(1).normal(size=(20, 16))
    losses = {"top-2 of 8": 1.04, "at random": 2.0}
    cells = experiment.cells_of(["against dense"])
    made = {
        cell: [{"test": losses.get(cell.system, 1.0) + e} for e in noise[i]]
        for i, cell in enumerate(cells)
    }
    answer = experiment.decided(claim, made)
    assert answer["verdict"] == "not supported"
    assert "with 0.025, holds and with 0.1, not supported." in section(claim, answer["decisions"])
