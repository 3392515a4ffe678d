"""The claims of articles: tests by hand, verdicts, and answers that change with the numbers."""

import pytest

from moe_np.experiments.training_methods import claims
from moe_np.experiments.training_methods.runs import LONGER, PAPER, SYSTEMS
from tests.support.training_runs import summarised


def test_tests_by_hand():
    assert claims.p_greater([3, 4, 5, None], [1, 2, 2.5, 2.7]) == pytest.approx(1 / 70)
    assert claims.p_greater([1, 1], [1, 1]) == 1 and claims.p_greater([None], [None]) == 1
    assert claims.p_more_often(3, 0, 3) == pytest.approx(1 / 20)
    assert claims.p_less_spread([1, 1, 1], [1, 1, 1]) == 1
    narrow, wide = [9, 10, 11, 10, 9, 11, 10], [0, 20, 5, 15, 10, 30, -10]
    assert claims.p_less_spread(narrow, wide) < 0.05 < 0.95 < claims.p_less_spread(wide, narrow)


def test_answers_and_verdicts():
    yes, reverse = claims.Answer("", 0.01, 0.9), claims.Answer("", 0.9, 0.01)
    assert yes.two_sided() == reverse.two_sided() == 0.02
    assert yes.word(0.02) == "yes" and reverse.word(0.02) == "reverse"
    assert yes.word(0.06) == reverse.word(0.06) == "no", "after the correction"
    assert claims.verdict(["yes"] * 3) == "holds"
    for answers in (["yes", "no", "no"], ["yes", "no", "reverse"], ["reverse", "yes", "yes"]):
        assert claims.verdict(answers) == "holds under a condition"
    assert claims.verdict(["reverse"] * 3) == "not supported"
    for answers in (["no"] * 3, ["no", "reverse", "no"]):
        assert claims.verdict(answers) == "cannot be told", "no difference seen is no verdict"


def test_words():
    assert claims.p_text(0.2, 0.9) == "p = 0.2"
    assert claims.p_text(0.999, 2e-7) == "p = 2e-07 the other way"
    assert claims.number_or_never(None) == "never" and claims.number_or_never(7.6) == "8"


ALONE = [(1, 1)] * 9
EARLY = [(0.0, 0.0)] * 9
LATE = [(0.5, 0.0)] * 9


def word(measurement, result):
    """The answer of one measurement alone, without a correction."""
    answer = measurement.decide(result, "p")
    return answer.word(answer.two_sided())


def test_claims_where_joint_training_is_early():
    result = summarised(**{"one expert": ALONE, "joint": EARLY, "alternating": LATE})
    assert word(claims.slower("alternating", "joint"), result) == "yes"
    assert word(claims.slower("joint", "alternating"), result) == "reverse"
    assert word(claims.ends_below_level("alternating", ""), result) == "no"
    assert word(claims.joint_is_efficient, result) == "yes"
    assert claims.joint_is_efficient.decide(result, "p").text.startswith("10, alternating 100; p")


def test_claims_where_joint_training_is_late():
    result = summarised(**{"one expert": ALONE, "joint": LATE, "EM": EARLY})
    assert word(claims.joint_is_efficient, result) == "reverse"
    assert claims.joint_is_efficient.decide(result, "p").text.startswith("100, EM 10; p = 2e-05")


def test_no_faster_method_is_no_proof_of_efficiency():
    result = summarised(**{"one expert": ALONE, "joint": EARLY, "EM": EARLY})
    assert word(claims.joint_is_efficient, result) == "no"


def test_an_unfinished_run_is_not_held_against_evolution():
    slow = {"one expert": ALONE, "joint": EARLY, LONGER: [(0.7, 0.7)] * 9}
    result = summarised(**slow)
    assert word(claims.ends_below_level(LONGER, ""), result) == "reverse"
    values = result["summary"]["p"]["systems"][LONGER]
    values |= {"stuck": 0, "unfinished": 9}
    assert word(claims.ends_below_level(LONGER, ""), result) == "no"
    caught = summarised(**{"one expert": ALONE, "joint": [(0.7, 0.7)] * 9, LONGER: EARLY})
    assert word(claims.ends_below_level(LONGER, ""), caught) == "yes"


def test_seconds_are_compared_at_the_end_of_their_range_that_is_worse_for_the_claim():
    slower = [(0.5, 0.0)] * 9
    ends = {"joint": [(0.0, 0.0)] * 9, "evolution strategy": slower, "CMA-ES": slower}
    result = summarised(**{"one expert": ALONE, **ends})
    assert word(claims.evolution_is_slow, result) == "yes", "10 and 100 passes of about 0.01 s"
    ranges = result["seconds_range"]["p"]
    ranges["joint"] = [0.01, 0.2]
    assert word(claims.evolution_is_slow, result) == "no", "joint may take 2 s, the others 1 s"
    ranges |= {"joint": [0.2, 0.2], "CMA-ES": [0.01, 0.01], "evolution strategy": [0.01, 0.01]}
    assert word(claims.evolution_is_slow, result) == "reverse"


def test_answers_are_corrected_for_all_tests_of_the_table(monkeypatch):
    def table(p, count):
        decide = claims.measured("m", "joint")(lambda result, problem: claims.Answer("", p, 1 - p))
        monkeypatch.setattr(claims, "CLAIMS", [("joint", str(i), decide) for i in range(count)])
        result = {"systems": {"p": {}}, "lines": {"joint": 1}}
        return {claim["found"]["p"] for claim in claims.claims(result)}

    assert table(0.01, 1) == {"yes"} and table(0.01, 3) == {"no"}
    assert table(0.99, 1) == {"reverse"} and table(0.99, 3) == {"no"}


def test_what_cannot_be_decided_is_withdrawn_with_a_reason():
    decided = {(about, claim) for about, claim, _ in claims.CLAIMS}
    for about, claim, why in claims.WITHDRAWN:
        assert (about, claim) not in decided and len(why.split()) > 5


def test_a_claim_is_left_out_where_a_system_is_missing():
    result = summarised(**{"one expert": ALONE, "joint": LATE, LONGER: EARLY})
    result["lines"] = dict.fromkeys(result["systems"]["p"], 1)
    decided = {(claim["about"], claim["claim"]) for claim in claims.claims(result)}
    assert decided == {
        ("evolutionary", "avoids them, given time"),
    }


def test_every_saying_of_the_articles_has_claims_about_methods_that_are_run():
    assert {about for about, _, _ in claims.CLAIMS} == set(PAPER)
    for _, _, measurement in claims.CLAIMS:
        assert set(measurement.systems) <= set(SYSTEMS) and measurement.words
