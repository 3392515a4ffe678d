"""The claims of articles: their cases and controls, verdicts, and what is withdrawn."""

import numpy as np
import pytest

from moe_np.experiments.common.controlled_claims import of_role
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED
from moe_np.experiments.training_methods import claims
from moe_np.experiments.training_methods.runs import (
    ANEW,
    CONTROLS,
    METHODS,
    PAPER,
    PERMUTED,
    PROBLEMS,
    SINGLE,
    SLOW,
    SYSTEMS,
    TRUE,
    TUNED,
)
from tests.support.training_runs import everywhere, with_summary

ALONE = [(1, 1)] * 9
EARLY = [(0.0, 0.0)] * 9
LATE = [(0.5, 0.0)] * 9
NEVER = [(0.9, 0.9)] * 9
ENDS = {SINGLE: ALONE, "joint": EARLY, ANEW: EARLY, SLOW: LATE}


def verdict_on(key, systems, gains=None):
    """The answer on one claim."""
    return claims.decided(claims.CLAIMS[key], with_summary(everywhere(PROBLEMS, systems, gains)))


@pytest.mark.parametrize(
    ("rival", "verdict"), [(LATE, HOLDS), (EARLY, NOT_SUPPORTED), (NEVER, HOLDS)]
)
def test_a_claim_on_passes_and_seconds(rival, verdict):
    answer = verdict_on("slower", {**ENDS, "alternating": rival})
    assert answer["controls"] and answer["verdict"] == verdict
    assert {d["verdict"] for d in of_role(answer["decisions"])} == {verdict}


def test_a_claim_that_holds_on_some_problems_holds_under_a_condition():
    result = everywhere(PROBLEMS, {**ENDS, "alternating": LATE})
    ends = everywhere(PROBLEMS, {"alternating": EARLY})["systems"]["vowels"]
    result["systems"]["vowels"] = {**result["systems"]["vowels"], **ends}
    answer = claims.decided(claims.SLOWER, with_summary(result))
    assert answer["verdict"] == "holds under a condition"


def test_runs_that_never_arrive_cannot_tell_which_method_is_faster():
    other = {**ENDS, "EM": EARLY, "joint": NEVER, "evolution strategy": NEVER, "CMA-ES": NEVER}
    answer = verdict_on("gradients", other)
    cases = of_role(answer["decisions"])
    assert {d["verdict"] for d in cases} == {CANNOT_BE_TOLD} == {answer["verdict"]}


@pytest.mark.parametrize("control", [{SLOW: EARLY}, {ANEW: LATE}])
def test_without_its_controls_a_claim_cannot_be_told(control):
    answer = verdict_on("slower", {**ENDS, **control, "alternating": LATE})
    assert not answer["controls"] and answer["verdict"] == CANNOT_BE_TOLD


@pytest.mark.parametrize(("gain", "verdict"), [(0.3, HOLDS), (0.02, NOT_SUPPORTED)])
def test_a_claim_on_what_the_experts_gain(gain, verdict):
    tenth = np.linspace(0.0, 0.01, 9)
    gains = {"joint": tenth, ANEW: tenth[::-1], "alternating": tenth, PERMUTED: tenth + 1}
    gains[TRUE] = tenth + gain
    systems = dict.fromkeys(gains, EARLY)
    for key in ("incompatible", "more compatible"):
        assert verdict_on(key, systems, gains)["verdict"] == verdict


def test_every_claim_has_one_control_of_each_kind_and_what_a_reader_needs():
    for claim in claims.CLAIMS.values():
        roles = [case.role for case in claim.cases]
        assert roles.count(claims.MUST_HOLD) == roles.count(claims.MUST_FAIL) == 1
        assert {case.problem for case in claim.cases if case.role == claims.CASE} == set(PROBLEMS)
        assert len({case.name for case in claim.cases}) == len(claim.cases)
        assert all(len(words.split()) > 4 for words in (claim.source, claim.case, claim.reason))
    assert sum(len(claim.cases) for claim in claims.CLAIMS.values()) == claims.INTERVALS
    assert pytest.approx(1 - 0.05 / claims.INTERVALS) == claims.LEVEL


def test_every_saying_of_the_articles_has_claims_about_methods_that_are_run():
    assert {claim.subject for claim in claims.CLAIMS.values()} == set(PAPER)
    assert claims.decidable(SYSTEMS) == list(claims.CLAIMS)
    used = {s for claim in claims.CLAIMS.values() for case in claim.cases for s in case.systems}
    assert used <= set(METHODS) and set(CONTROLS) <= used
    gains = list(claims.INCOMPATIBLE.cases + claims.COMPATIBLE.cases)
    assert {system for case in gains for system in case.systems} == set(TUNED)


def test_a_claim_is_left_out_where_a_system_is_missing():
    assert claims.decidable((SINGLE, "joint", "alternating")) == ["slower"]
    assert claims.decidable(("joint", "alternating")) == [], "without one expert there is no level"
    assert claims.decidable((SINGLE, "joint")) == []
    assert claims.control_cells(["slower"]) == [("vowels", SLOW), ("vowels", ANEW)]
    assert set(claims.control_cells(list(claims.CLAIMS))) == {
        ("vowels", SLOW),
        ("vowels", ANEW),
        ("piecewise", PERMUTED),
    }


def test_what_cannot_be_decided_is_withdrawn_with_a_reason():
    decided = {claim.claim for claim in claims.CLAIMS.values()}
    withdrawn = [sentence for _, sentence, _ in claims.WITHDRAWN]
    assert {"avoids local optima", "other techniques for each expert"} <= set(withdrawn)
    for _, sentence, why in claims.WITHDRAWN:
        assert sentence not in decided and len(why.split()) > 5
