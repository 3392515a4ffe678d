"""The claims of articles: tests by hand, verdicts, and answers that change with the numbers."""

import pytest

from moe_np.experiments.training_methods import claims
from moe_np.experiments.training_methods.runs import LONGER, PAPER, SYSTEMS
from tests.support.training_runs import summarised


def test_tests_by_hand():
    assert claims.p_greater([3, 4, 5, None], [1, 2, 2.5, 2.7]) == pytest.approx(1 / 70)
    assert claims.p_greater([1, 1], [1, 1]) == 1 and claims.p_greater([None], [None]) == 1
    assert claims.p_more_often(3, 0, 3) == pytest.approx(1 / 20)
    assert claims.chance_all_above(5, 10, 3) == pytest.approx(10 / 120)
    assert claims.chance_all_above(2, 10, 3) == 0


def test_answers_and_verdicts():
    assert claims.answer(0.01, 0.9) == "yes"
    assert claims.answer(0.9, 0.01) == "reverse"
    assert claims.answer(0.3, 0.7) == "no"
    assert claims.verdict(["yes"] * 3) == "holds"
    assert claims.verdict(["yes", "no", "no"]) == "partly"
    assert claims.verdict(["yes", "no", "reverse"]) == "mixed"
    assert claims.verdict(["reverse", "yes", "yes"]) == "mixed"
    assert claims.verdict(["no"] * 3) == "not seen"
    assert claims.verdict(["no", "reverse", "no"]) == "reversed"


def test_words():
    assert claims.percent(0.0004) == "0.04 %"
    assert claims.percent(0.28) == "28 %" and claims.percent(0) == "0 %"
    assert claims.p_text(0.2, 0.9) == "p = 0.2"
    assert claims.p_text(0.999, 2e-7) == "p = 2e-07 the other way"
    assert claims.number_or_never(None) == "never" and claims.number_or_never(7.6) == "8"


ALONE = [(1, 1)] * 9
EARLY = [(0.0, 0.0)] * 9
LATE = [(0.5, 0.0)] * 9


def test_claims_where_joint_training_is_early():
    result = summarised(**{"one expert": ALONE, "joint": EARLY, "alternating": LATE})
    assert claims.slower("alternating", "joint").decide(result, "p")[1] == "yes"
    assert claims.slower("joint", "alternating").decide(result, "p")[1] == "reverse"
    stuck = claims.joint_gets_stuck.decide(result, "p")
    assert stuck == ("0 of 9 stuck, 0 unfinished", "no")
    assert claims.ends_below_level("alternating", "").decide(result, "p")[1] == "no"
    efficient = claims.joint_is_efficient.decide(result, "p")
    assert efficient == ("10, alternating 100; p = 1 the other way", "yes")


def test_claims_where_joint_training_is_late():
    result = summarised(**{"one expert": ALONE, "joint": LATE, "EM": EARLY})
    text, word = claims.joint_is_efficient.decide(result, "p")
    assert word == "reverse" and text.startswith("100, EM 10; p = 2e-05")


def test_claims_where_joint_training_is_stuck():
    stuck = [(0.7, 0.7)] * 9
    result = summarised(**{"one expert": ALONE, "joint": stuck, LONGER: EARLY})
    assert claims.joint_gets_stuck.decide(result, "p")[1] == "yes"
    assert claims.ends_below_level(LONGER, "").decide(result, "p")[1] == "yes"
    restarts = claims.evolution_beats_restarts.decide(result, "p")
    assert restarts == ("0 % against 100 %", "yes")


def test_a_claim_is_left_out_where_a_system_is_missing():
    result = summarised(**{"one expert": ALONE, "joint": LATE, LONGER: EARLY})
    result["lines"] = dict.fromkeys(result["systems"]["p"], 1)
    decided = {(claim["about"], claim["claim"]) for claim in claims.claims(result)}
    assert decided == {
        ("gradient", "stuck in local optima"),
        ("evolutionary", "avoids them, given time"),
        ("evolutionary", "better than restarts"),
    }


def test_every_saying_of_the_articles_has_claims_about_methods_that_are_run():
    assert {about for about, _, _ in claims.CLAIMS} == set(PAPER)
    for _, _, measurement in claims.CLAIMS:
        assert set(measurement.systems) <= set(SYSTEMS) and measurement.words
