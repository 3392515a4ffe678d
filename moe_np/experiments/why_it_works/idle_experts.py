"""Do some experts contribute nothing? The trained mixtures of Jacobs et al. (1991)."""

from collections.abc import Sequence

import numpy as np

from moe_np.base.types import ArrayN, Params
from moe_np.data.speech.vowels import VowelTask
from moe_np.experiments.common.controlled_claims import (
    MUST_FAIL,
    MUST_HOLD,
    of_role,
    verdict_with_controls,
    with_roles,
    words_of_controls,
)
from moe_np.experiments.common.decisions import Decision, decide, in_words
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    criterion_of_table,
    first_seeds,
    grouped,
    means,
)
from moe_np.experiments.why_it_works.tasks import LEARNING_RATES, vowels
from moe_np.mixtures import jacobs1991

NEEDED = "2 experts"  # one straight line does not part the four vowels, two do
SHUT_OUT = "4 experts, two of them shut out by the gate"
EXPERTS = {"4 experts": 4, "8 experts": 8, NEEDED: 2, SHUT_OUT: 4}
ROLES = {NEEDED: MUST_FAIL, SHUT_OUT: MUST_HOLD}  # of the controls
FAR = -20.0  # a bias of the gate from which an expert gets p < 1e-8, and no gradient


def idle_specs(config: Config, quick: bool) -> list[Spec]:
    """Numbers of experts and controls × seeds."""
    return [
        {"task": task, "seed": seed}
        for task in EXPERTS
        for seed in first_seeds(2 if quick else config.seeds)
    ]


def idle_run(spec: Spec) -> Result:
    """The vowels under eq. 3.

    -> {"idle": experts that are not in use, "in use", "without the idle": how much the squared
    error rises if their part goes to the others}.
    """
    data = vowels()
    n_experts = EXPERTS[spec["task"]]
    params = jacobs1991.init_mixture(np.random.default_rng(spec["seed"]), n_experts)
    if spec["task"] == SHUT_OUT:
        params["c"][2:] = FAR
    run = jacobs1991.train_to_stop(params, data.x_train, data.d_train, lr=LEARNING_RATES["mixture"])
    active = jacobs1991.active_experts(jacobs1991.gate_forward(run.params, data.x_train)[0])
    lost = _error(data, run.params, active) - _error(data, run.params, np.ones(n_experts))
    in_use = int(active.sum())
    return {"idle": n_experts - in_use, "in use": in_use, "without the idle": lost}


def _error(data: VowelTask, params: Params, kept: ArrayN) -> float:
    """The mean squared error of the experts that are kept; they share the part of the others."""
    o = jacobs1991.experts_forward(params, data.x_train)[0]
    share = jacobs1991.gate_forward(params, data.x_train)[0] * kept
    y = (share[:, :, None] * o).sum(axis=1) / share.sum(axis=1, keepdims=True)
    return float(((data.d_train - y) ** 2).mean())


def idle_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task; "idle" is the number of them run by run."""
    return [
        {
            **{"task": task, "n": len(runs), "idle": [run["idle"] for run in runs]},
            **means(runs, "in use", "without the idle"),
        }
        for (task,), runs in grouped(specs, results, "task").items()
    ]


CRITERION = criterion_of_table("number of experts that are not in use", 0.5, "greater")
REASON = (
    "An expert that contributes nothing is one that is not in use; what is lost without them is "
    "told beside it. Half an expert in the mean is the least that can be called some. Two experts "
    "are needed for the vowels, so with two the claim must fail; two of four that the gate shuts "
    "out from the beginning have to be counted, so there it must hold. The question was a part of "
    "another one, without controls of its own; the seeds are new."
)


def idle_decisions(summary: list[Result]) -> list[Decision]:
    """One per task, that of a control with its role."""
    decisions = [decide(cell["task"], CRITERION, cell["idle"]) for cell in summary]
    return with_roles(ROLES, decisions)


def idle_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim is on 4 and on 8 experts."""
    decisions = idle_decisions(summary)
    shown = "; ".join(
        f"of {cell['task']} {cell['in use'][0]:.1f} are in use, and without the others the squared "
        f"error changes by {cell['without the idle'][0]:+.4f}"
        for cell in summary
        if cell["task"] not in ROLES
    )
    return verdict_with_controls(decisions), (
        f"{words_of_controls(decisions)}In the mean {shown}. That some are not in use: "
        f"{in_words(of_role(decisions))}"
    )


IDLE = Question(
    "Do some experts contribute nothing?",
    "some experts contribute nothing",
    "Fig. 2 of Jacobs et al. 1991, where one of four experts is idle",
    "The vowels of 1991, with 4 and with 8 experts.",
    idle_specs,
    idle_run,
    idle_summary,
    idle_verdict,
    CRITERION,
    REASON,
    idle_decisions,
)
