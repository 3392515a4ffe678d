"""Can a router learn from one expert per case? What k = 1 and renormalised weights leave of its
gradient (errata 4), and what k = 1 learns if its weight is left as it is.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base import optim
from moe_np.base.types import ArrayNC, ArrayND, Params
from moe_np.data import regimes
from moe_np.experiments.common.decisions import CONDITION, Decision, criterion, decide
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import interval, plural
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED
from moe_np.experiments.why_it_works.gate_collapse import length
from moe_np.experiments.why_it_works.questions import Config, Question, grouped, means
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
    seeds = 2 if quick else config.fits
    return [
        {"choice": choice, "seed": seed, "steps": steps}
        for choice in CHOICES
        for seed in range(seeds)
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
# single expert -> the router that it is compared with
RIVALS = {
    "k = 1, renormalised, against k = 2, renormalised": (STUCK, "k = 2, renormalised"),
    "k = 1 against k = 2, renormalised": ("k = 1", "k = 2, renormalised"),
    "k = 1 against k = 2": ("k = 1", "k = 2"),
}
CRITERION = criterion("log of the test errors' ratio, one expert over two", 0.1, "greater", 3)
REASON = (
    "If two experts are needed, a router with one has a higher error than a router with two. That "
    "k = 1 with renormalised weights has no gradient is arithmetic and certain before any run; it "
    "is the control in which the claim must hold. A router with two experts also does twice the "
    "operations, so a small advantage of it is no evidence for the claim."
)


def k_decisions(summary: list[Result]) -> list[Decision]:
    """One expert against two, seed by seed, in both forms of the weight."""
    errors = {cell["choice"]: np.array(cell["log errors"]) for cell in summary}
    return [
        decide(case, CRITERION, errors[single] - errors[double])
        for case, (single, double) in RIVALS.items()
    ]


def k_verdict(summary: list[Result]) -> tuple[str, str]:
    """Needed is more than better: the claim fails for a weight left as it is where that router
    learns, that is, has a lower error than the one without a gradient.
    """
    cells = {cell["choice"]: cell for cell in summary}
    stuck, single = cells[STUCK], cells["k = 1"]
    control, *left_as_it_is = k_decisions(summary)
    gain = np.subtract(stuck["log errors"], single["log errors"])
    learned = decide("k = 1 against k = 1, renormalised", CRITERION, gain)
    texts = [
        f"{decision['case']}: {interval([decision[key] for key in ('estimate', 'low', 'high')])}"
        for decision in (learned, *left_as_it_is)
    ]
    key = "error"
    text = (
        "With renormalised weights k = 1 gives the router a gradient of exactly 0 in "
        f"{stuck['zero']} of {plural(stuck['n'], 'run')}, which is arithmetic. Test errors: "
        f"{'; '.join(f'{name} {c[key]:.4f}' for name, c in cells.items())}. Log ratios "
        f"of the gain by learning and of the loss against two experts: {'; '.join(texts)}. "
    )
    if control["verdict"] != HOLDS:
        return CANNOT_BE_TOLD, f"{text}The control did not come out."
    if learned["verdict"] == HOLDS:
        return CONDITION, (
            f"{text}So two experts are needed if the weights are renormalised, and one is enough "
            "to learn if its weight is left as it is: renormalising takes the gradient away, not "
            "the single expert. Whether two are better is another question, and they cost twice "
            "the operations."
        )
    is_refuted = learned["verdict"] == NOT_SUPPORTED
    return HOLDS if is_refuted else CANNOT_BE_TOLD, f"{text}A single expert did not learn here."


ONE_OR_TWO = Question(
    "Are two experts needed for the router to learn?",
    "at least two experts are needed for the router to learn",
    k_specs,
    k_run,
    k_summary,
    k_verdict,
    CRITERION,
    REASON,
    k_decisions,
)
