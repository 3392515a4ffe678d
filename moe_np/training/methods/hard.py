"""Hard routing: each case goes to one expert that the gate draws, and only that one learns from it.

    h ~ p, one expert a case            L_n = −log f_h(y_n)          expected loss  Σ_i p_i L_i  (eq. 2's kind)

Experts get the gradient of L under the draw. The gate's own choice has no derivative; two stand-ins
are offered, both from `moe_np.routing.gradient_estimators` (Bengio et al. 2013, arXiv 1308.3432):

    reinforce           dlogits = (h − p)(L − baseline) / N: looks at the chosen expert only, right on average, noisy
    straight_through    dh = −log f / N as if h were p, then back through the softmax: looks at every expert

The baseline of a case is the running mean of its own earlier losses, which do not know of the draw
at hand. The mean of −log f over draws is never below −log of the mean of f (Jensen), so what goes
down here is a bound on the loss that every step reports, and its optimum is a gate that does not
hesitate.
"""

import itertools

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import softmax_backward
from moe_np.routing import contract as routing_contract
from moe_np.routing import gradient_estimators
from moe_np.routing.contract import Routing
from moe_np.training.methods import method
from moe_np.training.methods.method import Step

MEMORY = 0.9  # of the running means behind the baseline


def train(problem, rng, *, start=None, lr=0.03, estimator="reinforce"):
    """Draw, and take a step of Adam for both parts. Two passes a step, as joint training: all
    experts are computed.

    A layer that computes the chosen expert only would need 1/E of the experts' work for
    "reinforce".
    """
    params, states = method.begin(problem, checks.generator("rng", rng), start), {}
    lr = checks.number("lr", lr, above=0)
    checks.choice("estimator", estimator, gradient_estimators.ESTIMATORS)
    changed, baseline = (), None
    for number in itertools.count():
        loss, cache = method.forward(problem, params)
        yield Step(number, loss, changed, params, cache, 2.0 * number)
        routing = draw(cache, rng)
        case_loss = -cache.log_f[routing.token, routing.expert]
        baseline = case_loss if baseline is None else baseline
        dlog_f, dlogits = gradients(cache, routing, baseline, estimator)
        grads = {
            "experts": method.experts_backward(problem, dlog_f, cache.experts),
            "gate": problem.gate_backward(dlogits, cache.gate)[1],
        }
        baseline = MEMORY * baseline + (1 - MEMORY) * case_loss
        params, states = method.descend(params, grads, states, lr)
        changed = method.PARTS


def draw(cache, rng):
    """One expert a case, drawn from p, as a Routing of weight 1."""
    expert = gradient_estimators.draw(cache.p, rng)
    demand = routing_contract.demand_of(expert[:, None], cache.p.shape[1])
    return Routing(
        np.arange(len(expert)), expert, np.ones(len(expert)), cache.logits, cache.p, demand
    )


def gradients(cache, routing, baseline, estimator):
    """(dlog_f, dlogits), both (N, E), of the mean loss of the drawn experts."""
    N = len(cache.p)
    if estimator == "reinforce":
        case_loss = -cache.log_f[routing.token, routing.expert]
        dlogits = gradient_estimators.reinforce(routing, case_loss / N, baseline / N)
    else:
        dlogits = softmax_backward(-cache.log_f / N, cache.p)
    return -(routing.demand / N), dlogits
