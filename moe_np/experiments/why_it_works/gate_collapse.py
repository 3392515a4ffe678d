"""Why does the gating network not send everything to one expert?

The claim of articles is that an expert which gets everything performs badly, and that large
gradients follow. So the state is made of which it speaks: the gate has a bias towards one expert
and is held there while the experts are trained; then it is let go (`biased_gate.py`). What is
measured is the gradient of the gate at that moment, beside the largest that it has in a usual run
without a bias, and whether training gets away.
"""

import math
from collections.abc import Sequence

import numpy as np

from moe_np.experiments.common.controlled_claims import (
    MUST_FAIL,
    MUST_HOLD,
    came_out,
    of_role,
    with_role,
    words_of_controls,
)
from moe_np.experiments.common.decisions import Decision, decide, in_words, whole_verdict
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import join
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED
from moe_np.experiments.why_it_works.biased_gate import collapse_run, collapse_specs
from moe_np.experiments.why_it_works.questions import (
    Question,
    criterion_of_table,
    grouped,
    means,
)
from moe_np.experiments.why_it_works.tasks import EQUATIONS


def collapse_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One cell per kind and bias: how many runs got away, when, mean gradients, and the logs to
    base 10 of the gate's gradients, without a bias also at the end and there undecided.
    """
    cells = []
    for (gate, kind, bias), runs in grouped(specs, results, "gate", "kind", "bias").items():
        epochs = [run["escaped"] for run in runs if run["escaped"] is not None]
        cell = {"gate": gate, "kind": kind, "bias": bias, "n": len(runs), "escaped": len(epochs)}
        cell["when"] = float(np.median(epochs)) if epochs else None
        cell |= means(runs, "gate gradient", "first gradient", "other gradient", "share")
        cell["log gradients"] = _logs(runs, "gate gradient")
        if not bias:
            cell |= {f"log {words}": _logs(runs, words) for words in CONTROLS}
        if gate == "sparse":
            cell |= means(runs, "accuracy")
            cell["unused"] = sum(run["unused"] for run in runs)
            cell["unused moves"] = any(run["unused moves"] for run in runs)
        cells.append(cell)
    return cells


def _logs(runs, name):
    """Logs to base 10 of a length in all runs."""
    return np.log10(np.maximum([run[name] for run in runs], 1e-300)).tolist()


CONTROLS = {"undecided": MUST_HOLD, "end": MUST_FAIL}
CRITERION = criterion_of_table(
    "log to base 10 of the gate's gradient over a twentieth of its largest in a usual run",
    0.3,
    "greater",
)
REASON = (
    "Large means at least a tenth of the largest gradient that the gate has at any time in a usual "
    "run, from the same seed and without a bias, in which the experts part: twice a twentieth, and "
    "the log of 2 is .3. At the end of that run, where the gate has learned whom to choose, there "
    "is little to be gained by it, so there the claim must fail; with the same experts and a gate "
    "that is made undecided, there is much, so there it must hold. The tenth was chosen by three "
    "other runs of every kind without a bias, in which twice the largest failed this control, and "
    "with the gradients of an earlier run known. A bias larger than 10 would only test the "
    "precision of the numbers. An earlier criterion compared with experts that become equal under "
    "an undecided gate and leave it hardly any gradient. Every kind of training has controls of "
    "its own: where one does not come out, nothing is told of that kind. Before, nothing was told "
    "of any; the seeds are new."
)


def kind_in_words(kind: str) -> str:
    """An error of the dense mixture, or a variant of the sparse one."""
    return EQUATIONS.get(kind, f"sparse, {kind}")


def name_of(cell: Result) -> str:
    """A case in words."""
    return f"{kind_in_words(cell['kind'])} at {cell['bias']:g}"


def collapse_decisions(summary: list[Result]) -> list[Decision]:
    """One per kind and bias: whether the gate's gradient is large beside those of a usual run; then
    the controls of every kind.
    """
    usual = {cell["kind"]: cell for cell in summary if cell["bias"] == 0}

    def against_usual(case, kind, logs):
        largest = np.array(usual[kind]["log gradients"])
        return {**decide(case, CRITERION, logs - (largest - math.log10(20))), "kind": kind}

    decisions = [
        against_usual(name_of(cell), cell["kind"], cell["log gradients"])
        for cell in summary
        if cell["bias"]
    ]
    for kind, cell in usual.items():
        for words, role in CONTROLS.items():
            case = f"{kind_in_words(kind)}, gate at the end"
            case += " made undecided" if words == "undecided" else ""
            decisions.append(with_role(role, against_usual(case, kind, cell[f"log {words}"])))
    return decisions


def trusted_cases(decisions: Sequence[Decision]) -> list[Decision]:
    """Those on the cases; of a kind whose controls did not come out nothing can be told."""
    trusted = {
        kind: came_out([d for d in decisions if d["kind"] == kind])
        for kind in {d["kind"] for d in decisions}
    }
    return [
        d if trusted[d["kind"]] else {**d, "verdict": CANNOT_BE_TOLD} for d in of_role(decisions)
    ]


def collapse_whole(decisions: Sequence[Decision]) -> str:
    """The verdict on the cases of which something can be told."""
    return whole_verdict(trusted_cases(decisions))


def collapse_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim is on the gradient; whether runs get away is told beside it."""
    all_decisions = collapse_decisions(summary)
    decisions = trusted_cases(all_decisions)
    biased = [cell for cell in summary if cell["bias"]]
    away = {True: [], False: []}
    for cell, decision in zip(biased, decisions, strict=True):
        large = decision["verdict"] == HOLDS
        away[large].append(f"{name_of(cell)} {cell['escaped']} of {cell['n']}")
    texts = [
        f"where the gradient is {'' if large else 'not shown to be '}large, {join(counts)}"
        for large, counts in away.items()
        if counts
    ]
    text = (
        f"{words_of_controls(all_decisions)}"
        "A large gradient of the gate after an expert was trained on everything: "
        f"{in_words(decisions)} Runs that got away from the bias afterwards: {'; '.join(texts)}. "
    )
    free = [d["case"] for d, cell in zip(decisions, biased, strict=True) if _is_free(d, cell)]
    if free:
        text += f"So no large gradient is needed to get away in {join(free)}. "
    if any(cell.get("unused") for cell in biased):
        moves = any(cell.get("unused moves") for cell in biased)
        words = "do move" if moves else "have a gradient of exactly 0, so they cannot improve"
        text += f"Sparse, experts without samples {words}. "
    return collapse_whole(all_decisions), (
        f"{text}This is about a gate that begins with a bias. It does not say why gates without "
        "one collapse or not: lesson 09 shows one that does."
    )


def _is_free(decision, cell):
    """Whether all runs got away from where the gradient is known not to be large."""
    return decision["verdict"] == NOT_SUPPORTED and cell["escaped"] == cell["n"]


COLLAPSE = Question(
    "Why does the gate not send everything to one expert?",
    "one expert performs badly, large gradients follow",
    "popular articles; no paper is named",
    "A gate that gives everything to one expert, which was trained on everything. The size of the "
    "gradient is kept apart from whether training gets away, and the bias of the gate from how "
    "well the expert performs.",
    collapse_specs,
    collapse_run,
    collapse_summary,
    collapse_verdict,
    CRITERION,
    REASON,
    collapse_decisions,
    collapse_whole,
)
