"""Can a router learn from one expert per case? What k = 1 and renormalised weights leave of its
gradient (errata 4), and what k = 1 learns if its weight is left as it is.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base import optim
from moe_np.base.types import ArrayNC, ArrayND, Params
from moe_np.data import regimes
from moe_np.experiments.common.controlled_claims import (
    BESIDE,
    MUST_HOLD,
    of_role,
    with_role,
    words_of_controls,
)
from moe_np.experiments.common.decisions import CONDITION, Decision, decide
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import interval, plural
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED
from moe_np.experiments.why_it_works.biased_gate import length
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    criterion_of_table,
    first_seeds,
    grouped,
    means,
)
from moe_np.layers import diagnostics, sparse_layer
from moe_np.layers.experts import LINEAR
from moe_np.routing import top_k
from moe_np.routing.contract import Routing

CHOICES = {  # k, renormalise
    "k = 1, renormalised": (1, True),
    "k = 1": (1, False),
    "k = 2, renormalised": (2, True),
    "k = 2": (2, False),
}


def k_specs(config: Config, quick: bool) -> list[Spec]:
    """Choices × seeds."""
    steps = 60 if quick else 800
    return [
        {"choice": choice, "seed": seed, "steps": steps}
        for choice in CHOICES
        for seed in first_seeds(2 if quick else config.pairs)
    ]


def route(params: Params, x: ArrayND, k: int, renormalise: bool) -> tuple[Routing, top_k.Cache]:
    """`top_k.route`, which refuses k = 1 renormalised; here it is let through."""
    if (k, renormalise) != (1, True):
        return top_k.route(params, x, k=k, renormalise=renormalise)
    logits, probs, choice, weight, demand = top_k.forward_numpy(x, params["w"], k, renormalise)
    token = np.arange(len(x))
    routing = Routing(token, choice.ravel(), weight.ravel(), logits, probs, demand)
    return routing, top_k.Cache(x, params["w"], probs, choice, weight, renormalise, None)


def k_gradients(
    router: Params, experts: Params, x: ArrayND, d: ArrayNC, k: int, renormalise: bool
) -> tuple[float, Params, Params]:
    """Half the mean squared error of a sparse layer of linear experts.

    -> (loss, gradients of the router, gradients of the experts).
    """
    routing, cache = route(router, x, k, renormalise)
    out, layer_cache = sparse_layer.forward(experts, x, routing, LINEAR)
    residual = out - d
    _, dexperts, dweight = sparse_layer.backward(residual / len(x), layer_cache)
    _, drouter = top_k.route_backward(dweight, None, cache)
    return 0.5 * float((residual**2).sum(axis=1).mean()), drouter, dexperts


def k_run(spec: Spec) -> Result:
    """Four linear experts on four regions, router and experts by Adam.

    -> {"gradient": length of the router's first, "largest": component of any gradient of the
    router, "error": of the test data, "bits": what the routing tells about the region at the end}.
    """
    k, renormalise = CHOICES[spec["choice"]]
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    train, test = (regimes.draw(task, n, rng) for n in (400, 1000))
    x, x_test = (np.hstack([part.x, np.ones((len(part.x), 1))]) for part in (train, test))
    router = top_k.init(rng, 3, 4, scale=0.1)
    experts = LINEAR.init(rng, 3, 4, 1, scale=0.5)
    router_state = experts_state = first = None
    largest = 0.0
    for i in range(spec["steps"]):
        _, drouter, dexperts = k_gradients(router, experts, x, train.d, k, renormalise)
        first = length([drouter["w"]]) if first is None else first
        largest = max(largest, float(np.abs(drouter["w"]).max()))
        lr = 0.05 * (1 - i / spec["steps"])
        router, router_state = optim.adam(router, drouter, router_state, lr=lr)
        experts, experts_state = optim.adam(experts, dexperts, experts_state, lr=lr)
    routing, _ = route(router, x_test, k, renormalise)
    out, _ = sparse_layer.forward(experts, x_test, routing, LINEAR)
    known = diagnostics.mutual_information(routing.expert, test.region, rng, token=routing.token)
    error = float(((out - test.d) ** 2).mean())
    return {"gradient": first, "largest": largest, "error": error, "bits": known.bits}


def k_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One cell per choice, with the logs of the test errors of all runs."""
    cells = []
    for (choice,), runs in grouped(specs, results, "choice").items():
        log_error = np.log([run["error"] for run in runs])
        cell = {"choice": choice, "n": len(runs), **means(runs, "gradient", "largest", "bits")}
        cell["error"] = float(np.exp(log_error.mean()))
        cell["log errors"] = log_error.tolist()
        cell["zero"] = sum(run["largest"] == 0 for run in runs)
        cells.append(cell)
    return cells


STUCK = "k = 1, renormalised"
LEARNED = "k = 1, renormalised, against k = 1"  # the deciding case: what learning gains
# case -> the router whose error is taken, that with which it is compared, and the role
RIVALS = {
    "k = 1, renormalised, against k = 2, renormalised": (STUCK, "k = 2, renormalised", MUST_HOLD),
    LEARNED: (STUCK, "k = 1", None),
    "k = 1 against k = 2, renormalised": ("k = 1", "k = 2, renormalised", BESIDE),
    "k = 1 against k = 2": ("k = 1", "k = 2", BESIDE),
}
CRITERION = criterion_of_table(
    "log of the test errors' ratio, first router over second", 0.1, "greater"
)
REASON = (
    "Two experts are needed if a router cannot learn with one. So the case that decides is k = 1 "
    "with its weight left as it is against the router that cannot learn, k = 1 with renormalised "
    "weights: where the first has the lower error, one expert is enough, and the claim holds only "
    "under the condition of renormalised weights. That these leave no gradient is arithmetic and "
    "certain before any run; against k = 2 it is the control in which the claim must hold. Experts "
    "that are told the regions have no router to learn, so against them it must fail. Whether "
    "two experts are better is tested beside the claim: a router with two also does twice the "
    "operations. The deciding case used to stand outside this table, and 15 seeds could not show "
    "a difference below 1.4; their spread gave the number of seeds, which are new ones."
)


def k_decisions(summary: list[Result]) -> list[Decision]:
    """What learning gains with one expert, and one against two, seed by seed."""
    errors = {cell["choice"]: np.array(cell["log errors"]) for cell in summary}
    decisions = []
    for case, (router, rival, role) in RIVALS.items():
        decision = decide(case, CRITERION, errors[router] - errors[rival])
        decisions.append(with_role(role, decision) if role else decision)
    return decisions


def k_whole(decisions: Sequence[Decision]) -> str:
    """Needed is more than better: the claim fails for a weight left as it is where that router
    learns, that is, has a lower error than the one without a gradient.
    """
    (learned,) = of_role(decisions)
    if words_of_controls(decisions):
        return CANNOT_BE_TOLD
    return {HOLDS: CONDITION, NOT_SUPPORTED: HOLDS}.get(learned["verdict"], CANNOT_BE_TOLD)


def k_verdict(summary: list[Result]) -> tuple[str, str]:
    """The verdict of `k_whole`, with the errors and what follows."""
    cells = {cell["choice"]: cell for cell in summary}
    stuck = cells[STUCK]
    decisions = k_decisions(summary)
    holds = k_whole(decisions)
    texts = [
        f"{decision['case']}: {interval([decision[key] for key in ('estimate', 'low', 'high')])}"
        for decision in decisions
    ]
    key = "error"
    text = (
        f"{words_of_controls(decisions)}"
        "With renormalised weights k = 1 gives the router a gradient of exactly 0 in "
        f"{stuck['zero']} of {plural(stuck['n'], 'run')}, which is arithmetic. Test errors: "
        f"{'; '.join(f'{name} {c[key]:.4f}' for name, c in cells.items())}. Log ratios: "
        f"{'; '.join(texts)}."
    )
    if holds == CONDITION:
        text += (
            " So two experts are needed if the weights are renormalised, and one is enough to "
            "learn if its weight is left as it is: renormalising takes the gradient away, not the "
            "single expert. Whether two are better is another question, and they cost twice the "
            "operations."
        )
    if holds == HOLDS:
        text += " A single expert did not learn here."
    return holds, text


ONE_OR_TWO = Question(
    "Are two experts needed for the router to learn?",
    "at least two experts are needed for the router to learn",
    "popular articles; Shazeer et al. 2017 suspected it, by Fedus et al. 2022",
    "One expert per case. Whether there is one or two, and whether the weights that are kept are "
    "divided by their sum, are kept apart.",
    k_specs,
    k_run,
    k_summary,
    k_verdict,
    CRITERION,
    REASON,
    k_decisions,
    k_whole,
)
