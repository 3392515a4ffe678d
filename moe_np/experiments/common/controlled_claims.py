"""A claim on which several cases and controls decide: what it is, its verdict, its section.

Every case has a decision (`moe_np.experiments.common.decisions`), and so has every control; a
decision without a "role" is on a case. Where a control does not come out, nothing can be told.

    of_role, with_role, with_roles  the decisions on the cases, or on the controls
    came_out                        whether the controls did as they must
    verdict_with_controls           the verdict on the claim
    words_of_controls               which controls did not come out
    section                         the claim in words and with its table
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from moe_np.experiments.common.decisions import (
    VERDICTS,
    Decision,
    controls_came_out,
    decisions_table,
    in_words,
    other_thresholds,
    whole_verdict,
)
from moe_np.experiments.common.reports import join
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED, Criterion

CASE, MUST_HOLD, MUST_FAIL = "case", "must hold", "must fail"
BESIDE = "beside the claim"  # tested, with no part in the verdict
WORDS = {word: f"**{word}**" if word == NOT_SUPPORTED else word for word in VERDICTS}


class Claim(NamedTuple):
    """What is said, and what decides about it.

    claim       in our words
    source      where it is said
    case        the case in which it is said, and the factors that are kept apart
    criterion   with the level of a single claim; the experiment has that of all together
    reason      why this measure, and why this smallest difference
    cases       of the experiment, each with a name and a role: the cases and the controls
    subject     what it is about, where an experiment has several
    """

    title: str
    claim: str
    source: str
    case: str
    criterion: Criterion
    reason: str
    cases: tuple[Any, ...]
    subject: str = ""


def with_role(role: str, decision: Decision) -> Decision:
    """The decision on a control, or on what is tested beside the claim."""
    return {**decision, "role": role}


def with_roles(roles: Mapping[str, str], decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions; those whose case has a role in {case: role} with it."""
    return [with_role(roles[d["case"]], d) if d["case"] in roles else d for d in decisions]


def of_role(decisions: Sequence[Decision], role: str = CASE) -> list[Decision]:
    """The decisions with this role."""
    return [decision for decision in decisions if (decision.get("role") or CASE) == role]


def came_out(decisions: Sequence[Decision]) -> bool:
    """Whether the controls came out, by `decisions.controls_came_out`."""
    return controls_came_out(of_role(decisions, MUST_HOLD), of_role(decisions, MUST_FAIL))


def verdict_with_controls(decisions: Sequence[Decision]) -> str:
    """The verdict on the cases; nothing can be told where a control did not come out."""
    return whole_verdict(of_role(decisions)) if came_out(decisions) else CANNOT_BE_TOLD


def words_of_controls(decisions: Sequence[Decision]) -> str:
    """A sentence with a blank after it, which controls did not come out; empty where all did."""
    missed = [
        f"{role}: {decision['case']} ({decision['verdict']})"
        for role, wanted in ((MUST_HOLD, HOLDS), (MUST_FAIL, NOT_SUPPORTED))
        for decision in of_role(decisions, role)
        if decision["verdict"] != wanted
    ]
    return f"A control did not come out: {join(missed)}. " if missed else ""


def table(decisions: Sequence[Decision]) -> str:
    """The decisions as Markdown; what is no case of the claim in italics, with its role."""
    named = []
    for decision in decisions:
        role = decision.get("role") or CASE
        case = decision["case"] if role == CASE else f"*{role}: {decision['case']}*"
        named.append({**decision, "case": case})
    return decisions_table(named)


def section(claim: Claim, decisions: Sequence[Decision]) -> str:
    """One claim: where it is from, the case, the criterion, the decisions, what they say, and the
    verdict with other thresholds.
    """
    verdict = WORDS[verdict_with_controls(decisions)]
    rule = claim.criterion._replace(level=round(decisions[0]["level"], 4))
    words = in_words(of_role(decisions))
    if without := words_of_controls(decisions):
        words = f"{without}Without it {words}"
    sensitivity = other_thresholds(claim.criterion, decisions, verdict_with_controls)
    return (
        f"**{claim.title}** Claimed: {claim.claim} ({claim.source}). Verdict: {verdict}.\n\n"
        f"{claim.case}\n\n*Criterion.* {rule.text()} {claim.reason}\n\n"
        f"{table(decisions)}\n\n{words[0].upper()}{words[1:]} {sensitivity}"
    )
