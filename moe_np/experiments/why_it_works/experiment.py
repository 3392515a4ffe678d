"""Why does a mixture of experts work? The questions of popular articles, answered by experiments.

An article asks when a mixture is effective, why the gating network does not send everything to one
expert, what keeps experts from becoming identical, what they specialise in and what the gating
network learns, and gives reasons without numbers. Chen et al. (2022) add that specialisation takes
time and that the allocation is random; Jacobs et al. (1991) that one error makes experts cooperate
and another makes them compete. Each is a `Question` (`questions.py`) with a claim, runs, and a
verdict that is computed from the numbers of the very run: a claim that fails is said to fail.
"""

import dataclasses
from collections.abc import Sequence

from moe_np.base.checks import choice, integer
from moe_np.experiments.common.controlled_claims import came_out, words_of_controls
from moe_np.experiments.common.experiment import Result, Spec, selected
from moe_np.experiments.common.sweep import Sweep, versions
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD
from moe_np.experiments.why_it_works import (
    allocation_at_random,
    cooperation,
    further_controls,
    gate_collapse,
    idle_experts,
    more_experts,
    one_expert_or_two,
    what_the_gate_learns,
    when_experts_specialise,
    when_it_helps,
    who_gets_what,
    why_experts_differ,
)
from moe_np.experiments.why_it_works.questions import Config, first_seeds

QUESTIONS = {
    "help": when_it_helps.HELP,
    "learns": what_the_gate_learns.LEARNS,
    "more": more_experts.MORE,
    "harder": more_experts.HARDER,
    "idle": idle_experts.IDLE,
    "collapse": gate_collapse.COLLAPSE,
    "k": one_expert_or_two.ONE_OR_TWO,
    "equal": why_experts_differ.EQUAL,
    "errors": cooperation.ERRORS,
    "time": when_experts_specialise.TIME,
    "random": allocation_at_random.RANDOM,
    "start": who_gets_what.START,
}
# what is claimed; there are no published numbers
PAPER = {name: question.claim for name, question in QUESTIONS.items()}
SYSTEMS = tuple(QUESTIONS)
OPTIONS = ()
# the other questions take seconds
SMOKE = {"only": ("collapse", "k", "errors", "time", "random", "start"), "quick": True}
# of the configuration: numbers of runs
SIZES = ("seeds", "few", "fits", "pairs", "smooth", "blocks", "bases")


def run_one(spec: Spec) -> Result:
    """One run of one question."""
    name = choice("question", spec["question"], QUESTIONS)
    if "control" in spec:
        return further_controls.run(name, spec)
    return QUESTIONS[name].run({k: v for k, v in spec.items() if k != "question"})


def _checked(config, seeds):
    """The configuration in force: `seeds` is the largest number of runs of each kind."""
    config = config or Config()
    if seeds is None:
        return config
    seeds = integer("seeds", seeds)
    sizes = {name: min(seeds, getattr(config, name)) for name in SIZES}
    return dataclasses.replace(config, **sizes)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """The runs of all questions, or of those in `only`; `seeds` caps every number of runs."""
    config = _checked(config, seeds)
    return [
        {"question": name, **spec}
        for name in selected(SYSTEMS, only)
        for spec in (
            *QUESTIONS[name].specs(config, quick),
            *further_controls.specs(name, seeds, quick),
        )
    ]


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All questions, or those in `only`: what is written as why_it_works.json.

    seeds   at most as many of each number in the configuration
    quick   two or three runs of each kind, and short ones
    """
    chosen = specs(config, seeds=seeds, only=only, quick=quick)
    config = _checked(config, seeds)
    results = sweep.map(run_one, chosen, "why it works")
    pairs = {name: [] for name in selected(SYSTEMS, only)}
    for spec, result in zip(chosen, results, strict=True):
        pairs[spec["question"]].append((spec, result))
    return {
        "name": "why_it_works",
        "config": dataclasses.asdict(config),
        "quick": quick,
        "seeds": list(first_seeds(config.seeds)),
        "questions": {
            name: summarise(name, *zip(*answered, strict=True)) for name, answered in pairs.items()
        },
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(name: str, specs: Sequence[Spec], results: Sequence[Result]) -> Result:
    """What the runs of one question show.

    -> {"claim", "runs": their number, "summary", "decisions", "holds": one of
    `decisions.VERDICTS`, "verdict": sentences}.
    """
    question = QUESTIONS[choice("question", name, QUESTIONS)]
    pairs = list(zip(specs, results, strict=True))
    controls = [pair for pair in pairs if "control" in pair[0]]
    summary = question.summarise(*zip(*(p for p in pairs if "control" not in p[0]), strict=True))
    holds, sentences = question.verdict(summary)
    further = []
    if controls:
        rule = question.criterion
        further = further_controls.decisions(name, rule, *zip(*controls, strict=True))
    if not came_out(further):
        holds, sentences = CANNOT_BE_TOLD, words_of_controls(further) + sentences
    result = {"claim": question.claim, "runs": len(results), "summary": summary}
    result["decisions"] = question.decisions(summary) + further
    return {**result, "holds": holds, "verdict": sentences}
