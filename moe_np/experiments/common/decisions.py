"""Decisions on a claim, case by case, by a criterion that was fixed before the runs.

A claim is looked at in several cases. In each one the interval of the measure is held against the
criterion (`moe_np.experiments.common.verdicts`), at a level that holds for all cases together that
the experiment counts. From the cases follows the verdict on the claim, one of four:

    holds                     it holds in every case
    holds under a condition   it holds in some cases and not in all: the cases are the condition
    not supported             it is not supported in any case
    cannot be told            the rest
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power import smallest_difference
from moe_np.experiments.common.reports import decimal, interval, join, markdown_table
from moe_np.experiments.common.statistics import (
    Interval,
    Values,
    d_z,
    describe,
    is_constant,
    sample,
    t_interval,
)
from moe_np.experiments.common.verdicts import (
    CANNOT_BE_TOLD,
    HOLDS,
    NOT_SUPPORTED,
    Criterion,
    bonferroni_level,
    verdict,
)

CONDITION = "holds under a condition"
VERDICTS = (HOLDS, CONDITION, NOT_SUPPORTED, CANNOT_BE_TOLD)
FEWEST_EQUAL = 8  # values without any spread: fewer say too little about values that were not seen
LARGEST_EFFECT = 100  # of d_z: beyond it the spread is one of rounding, and so is the effect

Decision: TypeAlias = Result  # what `decide` returns


def criterion(measure: str, smallest: float, direction: str, cases: int) -> Criterion:
    """A criterion whose intervals hold for all `cases` together in 95 of 100 tables."""
    return Criterion(measure, smallest, direction, bonferroni_level(0.95, cases))


def decide(case: str, rule: Criterion, values: Values) -> Decision:
    """The decision on one case, JSON-able.

    values   the measure of every run, paired differences where two systems are compared

    -> {"case", "verdict", "estimate", "low", "high", "level", "n", "effect", "detectable"}:
    "effect" is d_z, None above LARGEST_EFFECT, and "detectable" the true value of the measure from
    which on as many runs find in 80 % of the cases that the claim holds; both are None for a single
    run.
    """
    values = sample("values", values)
    bounds = t_interval(values, level=rule.level)
    if is_constant(values) and len(values) < FEWEST_EQUAL:
        bounds = bounds._replace(low=None, high=None)
    sd = describe(values).sd
    detectable = None
    if sd is not None:
        beyond = smallest_difference(len(values), sd, alpha=1 - rule.level)
        detectable = (1 if rule.direction == "greater" else -1) * (rule.smallest + beyond)
    effect = d_z(values)
    if effect is not None and abs(effect) > LARGEST_EFFECT:
        effect = None
    decision = {"case": case, "verdict": verdict(rule, bounds), **bounds.record()}
    return {**decision, "n": len(values), "effect": effect, "detectable": detectable}


def cases_with(decisions: Sequence[Decision], *verdicts: str) -> list[str]:
    """The cases with one of these verdicts."""
    return [decision["case"] for decision in decisions if decision["verdict"] in verdicts]


def whole_verdict(decisions: Sequence[Decision]) -> str:
    """The verdict on a claim from those on its cases."""
    verdicts = {decision["verdict"] for decision in decisions}
    if verdicts == {HOLDS}:
        return HOLDS
    if HOLDS in verdicts:
        return CONDITION
    return NOT_SUPPORTED if verdicts == {NOT_SUPPORTED} else CANNOT_BE_TOLD


def controls_came_out(must_hold: Sequence[Decision], must_fail: Sequence[Decision]) -> bool:
    """Whether the claim holds in every control in which it must, and is not supported in every one
    in which it must fail. A control that cannot be told has not come out: with few runs no measure
    would ever fail it.
    """
    return all(decision["verdict"] == HOLDS for decision in must_hold) and all(
        decision["verdict"] == NOT_SUPPORTED for decision in must_fail
    )


def other_thresholds(
    rule: Criterion,
    decisions: Sequence[Decision],
    whole: Callable[[Sequence[Decision]], str] = whole_verdict,
) -> str:
    """A sentence: the verdict with half and with twice the smallest difference of interest.

    whole   the verdict on the claim from the decisions, which keep their other entries
    """
    verdicts = {}
    for factor in (0.5, 2):
        smallest = factor * rule.smallest
        changed = []
        for decision in decisions:
            bounds = Interval(*(decision[key] for key in ("estimate", "low", "high", "level")))
            other = rule._replace(smallest=smallest, level=bounds.level)
            changed.append({**decision, "verdict": verdict(other, bounds)})
        verdicts[smallest] = whole(changed)
    return sensitivity_in_words("smallest difference", verdicts)


def sensitivity_in_words(choice: str, verdicts: Mapping[float, str]) -> str:
    """A sentence: the verdict with other values of what we chose, {value: verdict}."""
    words = join(f"with {value:g}, {verdict}" for value, verdict in verdicts.items())
    return f"Sensitivity, the verdict with another {choice}: {words}."


def in_words(decisions: Sequence[Decision]) -> str:
    """In which cases the claim holds, in which it is not supported, and which cannot be told."""
    parts = [
        f"{words} for {join(cases)}"
        for words, cases in (
            ("it holds", cases_with(decisions, HOLDS)),
            ("it is not supported", cases_with(decisions, NOT_SUPPORTED)),
            ("it cannot be told", cases_with(decisions, CANNOT_BE_TOLD)),
        )
        if cases
    ]
    return f"{'; '.join(parts)}."


def decisions_table(decisions: Sequence[Decision], digits: int = 3) -> str:
    """The decisions as Markdown: the interval of the measure, its effect size, the power, and the
    verdict.
    """
    head = ("case", "runs", "mean [interval]", "d", "would hold in 80 % of cases from", "verdict")
    rows = [
        (
            decision["case"],
            decision["n"],
            interval([decision[key] for key in ("estimate", "low", "high")], digits),
            decimal(decision.get("effect"), 1),
            decimal(decision["detectable"], digits),
            decision["verdict"],
        )
        for decision in decisions
    ]
    return markdown_table(head, rows)
