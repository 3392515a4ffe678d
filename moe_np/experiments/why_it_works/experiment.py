"""Why does a mixture of experts work? The questions of popular articles, answered by experiments.

An article asks when a mixture is effective, why the gate does not send everything to one expert,
what keeps experts from becoming identical, what they specialise in and what the gate learns, and
gives reasons without numbers. Chen et al. (2022) add that specialisation takes time and that the
allocation is random; Jacobs et al. (1991) that one error makes experts cooperate and another
compete. Each is a `Question` with a claim, runs, a table, and a verdict that is computed from the
numbers of the very run: a claim that fails is said to fail.

    why_help.py         when does a mixture help; what does the gate learn
    why_gate.py         why not everything to one expert; k = 1 against k = 2
    why_apart.py        what stops experts from becoming equal; cooperation and competition
    why_allocation.py   does it take time, is it random, does it follow the gate's start
    why_more.py         more and more experts; harder regions, idle experts
"""

import dataclasses

from moe_np.base.checks import InputError, choice, integer
from moe_np.experiments.common.sweep import versions
from moe_np.experiments.why_it_works import (
    gate_collapse,
    more_experts,
    when_it_helps,
    who_gets_what,
    why_experts_differ,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """How many runs; what is run stands in the questions' files. All ours."""

    seeds: int = 25
    few: int = 8  # where a run is long or hardly differs from the next
    fits: int = 15  # of fits to their minimum
    experts: tuple = (1, 2, 3, 4, 6, 8, 12)
    blocks: int = 8  # of 25 runs, for the allocation
    bases: int = 30  # runs whose allocation is compared with that of others


QUESTIONS = {
    "help": when_it_helps.HELP,
    "collapse": gate_collapse.COLLAPSE,
    "equal": why_experts_differ.EQUAL,
    "errors": why_experts_differ.ERRORS,
    "time": who_gets_what.TIME,
    "random": who_gets_what.RANDOM,
    "start": who_gets_what.START,
    "learns": when_it_helps.LEARNS,
    "k": gate_collapse.ONE_OR_TWO,
    "more": more_experts.MORE,
    "harder": more_experts.HARDER,
}
PAPER = {
    name: question.claim for name, question in QUESTIONS.items()
}  # what is claimed; there are no numbers
WORDS = {"yes": "holds", "partly": "holds in part", "no": "does **not** hold"}


def run_one(spec):
    """One run of one question."""
    question = QUESTIONS[choice("question", spec["question"], QUESTIONS)]
    return question.run({k: v for k, v in spec.items() if k != "question"})


def plan(config=None, *, seeds=None, quick=False, questions=None):
    """The configuration in force and the specs of all runs. `seeds` caps every number of seeds."""
    config = Config() if config is None else config
    if seeds is not None:
        seeds = integer("seeds", seeds)
        caps = ("seeds", "few", "fits", "blocks", "bases")
        config = dataclasses.replace(config, **{k: min(seeds, getattr(config, k)) for k in caps})
    if questions is not None and not set(questions) <= set(QUESTIONS):
        raise InputError(
            f"questions: wanted some of {', '.join(QUESTIONS)}; got {', '.join(map(str, questions))}"
        )
    names = tuple(QUESTIONS) if questions is None else tuple(questions)
    return config, [
        {"question": name, **spec}
        for name in names
        for spec in QUESTIONS[name].specs(config, quick)
    ]


def run(config=None, *, seeds=None, sweep, quick=False, questions=None):
    """All questions, or some: the dict that is written as why_it_works.json.

    seeds       at most so many of each number in the configuration
    questions   names out of QUESTIONS
    """
    config, specs = plan(config, seeds=seeds, quick=quick, questions=questions)
    runs = sweep.map(run_one, specs, "why it works")
    out = {}
    for name in dict.fromkeys(spec["question"] for spec in specs):
        own = [(s, r) for s, r in zip(specs, runs, strict=True) if s["question"] == name]
        summary = QUESTIONS[name].summarise(*zip(*own, strict=True))
        holds, verdict = QUESTIONS[name].verdict(summary)
        out[name] = {
            "claim": PAPER[name],
            "runs": len(own),
            "summary": summary,
            "holds": holds,
            "verdict": verdict,
        }
    return {
        "name": "why_it_works",
        "config": dataclasses.asdict(config),
        "quick": quick,
        "seeds": list(range(config.seeds)),
        "questions": out,
        "paper": PAPER,
        "versions": versions(),
    }


def table(result):
    """First which claims hold, then each question with its table and verdict. Markdown."""
    found = result["questions"]
    lines = ["| question | claimed | |", "|---|---|---|"]
    lines += [
        f"| {QUESTIONS[name].title} | {one['claim']} | {WORDS[one['holds']]} |"
        for name, one in found.items()
    ]
    parts = ["\n".join(lines)] + [section(name, one) for name, one in found.items()]
    if result["quick"]:
        parts.insert(0, "Few seeds and short runs: this shows that it works and nothing else.")
    return "\n\n".join(parts)


def section(name, one):
    """One question: claim, table, verdict."""
    question = QUESTIONS[name]
    claim = f"**{question.title}** Claimed: {one['claim']}. It {WORDS[one['holds']]}."
    return "\n\n".join([claim, question.rows(one["summary"]), one["verdict"]])
