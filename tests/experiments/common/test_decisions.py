"""Decisions on cases, and the verdict that follows from them."""

import json

import numpy as np
import pytest

from moe_np.experiments.common import decisions
from moe_np.experiments.common.decisions import decide
from moe_np.experiments.common.reports import markdown_table
from moe_np.experiments.common.sweep import to_json

RULE = decisions.criterion("difference", 0.1, "greater", 2)


def of(*verdicts):
    return [{"case": f"case {i}", "verdict": verdict} for i, verdict in enumerate(verdicts)]


def test_a_case_is_decided_by_its_interval():
    assert RULE.level == pytest.approx(0.975)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20)
    clear = decide("clear", RULE, 1 + 0.1 * noise)
    assert clear["verdict"] == "holds" and clear["low"] > 0.1 and clear["n"] == 20
    assert decide("none", RULE, 0.01 * noise)["verdict"] == "not supported"
    unclear = decide("noisy", RULE, 3 * noise)
    assert unclear["verdict"] == "cannot be told" and unclear["detectable"] > 1
    assert json.loads(to_json(clear)) == clear


def test_few_values_without_spread_decide_nothing():
    assert decide("equal", RULE, [1.0] * 7)["verdict"] == "cannot be told"
    assert decide("equal", RULE, [1.0] * 8)["verdict"] == "holds"
    single = decide("single", RULE, [1.0])
    assert single["verdict"] == "cannot be told" and single["detectable"] is None


@pytest.mark.parametrize("direction", ["greater", "less"])
def test_power_is_that_of_the_verdict(direction):
    """At the printed value the claim holds in 80 % of the repetitions."""
    rule = decisions.criterion("difference", 0.1, direction, 2)
    rng = np.random.default_rng(7)
    values = np.repeat([-1.0, 1.0], 20)
    printed = decide("known spread", rule, values)["detectable"]
    sd = values.std(ddof=1)
    drawn = printed + sd * rng.normal(size=(2000, 40))
    holds = np.mean([decide("case", rule, runs)["verdict"] == "holds" for runs in drawn])
    assert abs(printed) > 0.1 and np.sign(printed) == (1 if direction == "greater" else -1)
    assert holds == pytest.approx(0.8, abs=0.03)


def test_a_control_that_cannot_be_told_has_not_come_out():
    came_out = decisions.controls_came_out
    assert came_out(of("holds"), of("not supported", "not supported"))
    assert not came_out(of("holds"), of("not supported", "cannot be told"))
    assert not came_out(of("cannot be told"), of("not supported"))
    assert not came_out(of("holds"), of("holds"))


def test_other_thresholds_are_tried():
    rng = np.random.default_rng(0)
    cases = [decide("a", RULE, 0.15 + 0.01 * rng.normal(size=20))]
    assert decisions.other_thresholds(RULE, cases) == (
        "Sensitivity, the verdict with another smallest difference: "
        "with 0.05, holds and with 0.2, not supported."
    )
    words = decisions.other_thresholds(RULE, cases, lambda changed: changed[0]["case"])
    assert words.endswith("with 0.05, a and with 0.2, a.")


def test_the_verdict_on_a_claim_follows_from_its_cases():
    whole = decisions.whole_verdict
    assert whole(of("holds", "holds")) == "holds"
    assert whole(of("holds", "not supported")) == "holds under a condition"
    assert whole(of("holds", "cannot be told")) == "holds under a condition"
    assert whole(of("not supported", "not supported")) == "not supported"
    assert whole(of("not supported", "cannot be told")) == "cannot be told"


def test_words_and_table():
    cases = [decide("a", RULE, [1.0, 1.1, 0.9, 1.0, 1.05]), decide("b", RULE, [0.0])]
    assert decisions.in_words(cases) == "it holds for a; it cannot be told for b."
    table = decisions.decisions_table(cases, digits=2)
    assert "| b | 1 | 0.00 [–, –] | – | – | cannot be told |" in table
    assert "| a | 5 | 1.01 [" in table and "| 13.6 |" in table  # 1.01 / .0742
    assert table.count("\n") == markdown_table(("x",), [(1,), (2,)]).count("\n")
