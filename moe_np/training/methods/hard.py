"""Hard routing: the gate draws one expert per case, and only this expert learns from the case.

    h ~ p, one expert per case      L_n = −log f_h(y_n)      expected loss Σ_i p_i L_i (as in eq. 2)

The experts get the gradient of L for the drawn expert. The drawing has no derivative; there are two
estimators of the gate's gradient, both in `moe_np.routing.gradient_estimators` (Bengio et al. 2013,
arXiv 1308.3432):

    reinforce           dlogits = (h − p)(L − baseline) / N: needs the chosen expert only, is right
                        on average, and noisy
    straight_through    dh = −log f / N as if h were p, then through the softmax: needs all experts

The baseline of a case is the running mean of its earlier losses, which do not depend on the present
drawing. The mean of −log f over drawings is never below −log of the mean of f (Jensen), so the
expected loss is an upper bound of the loss that every step reports, and its optimum is a gate that
is deterministic.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import softmax_backward
from moe_np.base.types import ArrayN, ArrayNE, Rng
from moe_np.routing import contract as routing_contract
from moe_np.routing import gradient_estimators
from moe_np.routing.contract import Routing
from moe_np.training.methods import method
from moe_np.training.methods.method import Cache, MixtureParams, Problem, Step

MEMORY = 0.9  # of the running mean that is the baseline


def train(
    problem: Problem,
    rng: Rng,
    *,
    initial: MixtureParams | None = None,
    lr: float = 0.03,
    estimator: str = "reinforce",
) -> Iterator[Step]:
    """Draw experts, then a step of Adam with learning rate `lr` for both parts.

    Two passes per step, as in joint training: all experts are computed. A layer that computes only
    the chosen expert would need 1/E of the experts' work with "reinforce".
    """
    params = method.initial_params(problem, checks.generator("rng", rng), initial)
    lr = checks.number("lr", lr, greater_than=0)
    checks.choice("estimator", estimator, gradient_estimators.ESTIMATORS)
    states = {}
    updated = ()
    baseline = None
    for number in itertools.count():
        loss, cache = method.forward(problem, params)
        yield Step(number, loss, updated, params, cache, 2.0 * number)
        routing = draw_experts(cache, rng)
        case_loss = -cache.log_f[routing.token, routing.expert]
        baseline = case_loss if baseline is None else baseline
        dlog_f, dlogits = gradients(cache, routing, baseline, estimator)
        grads = {
            "experts": method.log_densities_backward(problem, dlog_f, cache.experts),
            "gate": problem.gate_backward(dlogits, cache.gate)[1],
        }
        baseline = MEMORY * baseline + (1 - MEMORY) * case_loss
        params, states = method.adam_step(params, grads, states, lr)
        updated = method.PARTS


def draw_experts(cache: Cache, rng: Rng | None) -> Routing:
    """One expert per case, drawn with the probabilities p, as a Routing with weight 1."""
    expert = gradient_estimators.draw(cache.p, rng)
    N, E = cache.p.shape
    demand = routing_contract.demand_of(expert[:, None], E)
    return Routing(np.arange(N), expert, np.ones(N), cache.logits, cache.p, demand)


def gradients(
    cache: Cache, routing: Routing, baseline: ArrayN | float, estimator: str
) -> tuple[ArrayNE, ArrayNE]:
    """(dlog_f, dlogits) of the mean loss of the drawn experts."""
    N = len(cache.p)
    if estimator == "reinforce":
        case_loss = -cache.log_f[routing.token, routing.expert]
        dlogits = gradient_estimators.reinforce(routing, case_loss / N, baseline / N)
    else:
        dlogits = softmax_backward(-cache.log_f / N, cache.p)
    return -(routing.demand / N), dlogits
