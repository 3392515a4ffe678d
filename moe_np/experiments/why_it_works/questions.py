"""What the questions of `why_it_works` have in common: their form, and how their runs are compared.

A question is a claim of articles or papers, the runs that test it, what they show, and a verdict
that is computed from these numbers. Questions lie in

    when_it_helps         when a mixture helps
    what_the_gate_learns  whether the gating network clusters the inputs
    gate_collapse         why not everything goes to one expert
    one_expert_or_two     whether a router learns from one expert per case
    why_experts_differ    what keeps experts apart
    cooperation           which error makes experts cooperate
    when_experts_specialise   whether specialisation takes time
    allocation_at_random  whether it is random who gets what
    who_gets_what         whether it follows the gate's beginning
    more_experts          more and more experts; harder regions
    idle_experts          whether some contribute nothing
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from moe_np.experiments.common.controlled_claims import (
    verdict_with_controls,
)
from moe_np.experiments.common.decisions import Decision, criterion
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.verdicts import Criterion

# Cases, criteria, controls and numbers of runs were changed after runs with seeds up to 20,000 were
# looked at, so these seeds are new ones.
FIRST_SEED = 40_000
OTHER_SEED = FIRST_SEED + 10_000  # of controls with runs of their own
INTERVALS = {  # of the cases, the controls and what is tested beside them
    "help": 9,
    "learns": 8,
    "more": 5,
    "harder": 7,
    "idle": 4,
    "collapse": 25,
    "k": 5,
    "equal": 8,
    "errors": 6,
    "time": 4,
    "random": 6,
    "start": 17,
}
ALL_INTERVALS = sum(INTERVALS.values())


@dataclasses.dataclass(frozen=True)
class Config:
    """How many runs there are; what is run stands in the questions' files. All are our choices."""

    seeds: int = 25
    few: int = 12  # where a run is long, or hardly differs from the next
    fits: int = 20  # of fits to their minimum
    experts: tuple = (1, 2, 3, 4, 6, 8, 12)
    pairs: int = 100  # of two fits whose difference varies much from seed to seed
    smooth: int = 30  # of a mixture and a network where the difference is large beside its spread
    blocks: int = 40  # of 25 runs, for the allocation
    bases: int = 60  # runs whose allocation is compared with that of other runs


def first_seeds(n: int) -> range:
    """n seeds that no earlier run had."""
    return range(FIRST_SEED, FIRST_SEED + n)


# --- Decisions ------------------------------------------------------------------------------------


def criterion_of_table(measure: str, smallest: float, direction: str) -> Criterion:
    """A criterion whose intervals hold, with those of all other questions, in 95 of 100 tables."""
    return criterion(measure, smallest, direction, ALL_INTERVALS)


class Question(NamedTuple):
    """A question, what is claimed, and how it is answered.

    claim       in our words
    source      where it is said
    case        the case in which it is said, and the factors that are kept apart
    specs       (config, quick) -> the specs of its runs, without the name of the question
    run         (spec) -> the JSON-able result of one run
    summarise   (specs, results) -> what they show, JSON-able
    verdict     (summary) -> (one of `decisions.VERDICTS`, sentences): whether the claim holds
    criterion   what decides in every case, fixed before the runs
    reason      why this measure, and this smallest difference
    decisions   (summary) -> the decision on every case and, with a "role", on every control
    whole       (decisions) -> the verdict on the claim
    sensitivity (summary) -> a sentence: the verdict with another choice of what the measure holds;
                None: the smallest difference is varied
    """

    title: str
    claim: str
    source: str
    case: str
    specs: Callable[[Config, bool], list[Spec]]
    run: Callable[[Spec], Result]
    summarise: Callable[[Sequence[Spec], Sequence[Result]], Any]
    verdict: Callable[[Any], tuple[str, str]]
    criterion: Criterion
    reason: str
    decisions: Callable[[Any], list[Decision]]
    whole: Callable[[Sequence[Decision]], str] = verdict_with_controls
    sensitivity: Callable[[Any], str] | None = None


def grouped(
    specs: Sequence[Spec], results: Sequence[Result], *keys: str
) -> dict[tuple, list[Result]]:
    """{(spec[key], ...): results}, in the order of the specs."""
    groups = {}
    for spec, result in zip(specs, results, strict=True):
        groups.setdefault(tuple(spec[key] for key in keys), []).append(result)
    return groups


def mean_and_sd(values: Sequence[float]) -> list[float]:
    """[mean, sample standard deviation (n − 1)]; the deviation of one value is 0."""
    return list(describe(values, single=0.0)[:2])


def means(results: Sequence[Result], *names: str) -> dict[str, list[float]]:
    """{name: [mean, sample standard deviation]} over the results."""
    return {name: mean_and_sd([result[name] for result in results]) for name in names}
