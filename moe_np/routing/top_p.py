"""Top-p gating, as many experts as it takes to reach a probability of p: Huang et al. 2024 (arXiv
2403.07652).

    paper                 here       shape     meaning
    W_r                   w          (D, E)    router matrix
    P = Softmax(W_r·x)    probs      (N, E)
    p                     p                    threshold, .4 in the paper
    I                     order      (N, E)    all experts of a token, most probable first
    –                     ranked     (N, E)    their probabilities
    –                     before     (N, E)    the sum of the more probable ones
    t                     kept       (N, E)    the fewest in this order whose sum reaches p
    g_i                   weight     (A,)      P_i of the kept, not renormalised
    Loss_d                                     −Σ P log P, `token_entropy` of layers/balance.py,
                                               added to the task's loss

A sure token takes one expert, an unsure one several: between 1 and E, the one that crosses p
included. Without the entropy loss the router can lower the task's loss by spreading out until every
token takes most experts; adding the entropy, with a plus sign, makes it prefer to be sure.

Not renormalised, so every logit gets a gradient; where the cut falls is not differentiated.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.types import ArrayA, ArrayDE, ArrayN, ArrayND, ArrayNE, Options, Params, Rng
from moe_np.routing import contract, linear_map, stages, top_k, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {"p": 0.4}

init = top_k.init  # {"w": (D, E)}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    probs: ArrayNE
    order: ArrayNE
    ranked: ArrayNE
    before: ArrayNE
    p: float
    kept: ArrayNE  # bool, in the order of `order`
    token: ArrayA
    expert: ArrayA
    valid: ArrayN


def route(
    params: Params,
    x: ArrayND,
    *,
    p: float,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its fewest experts of total probability >= p, 0 < p <= 1: x (N, D) ->
    (Routing, cache). No noise.

    With p = 1 a token takes all experts, but for those at the end that add nothing to the sum at
    this precision.
    A sum that is less than p by rounding alone (4 units of the last place of 1) reaches it.
    """
    x, w = contract.check_inputs(params, x)
    p = checks.number("p", p, greater_than=0, maximum=1)
    contract.check_training(training, rng)
    valid = contract.check_valid(valid, len(x))
    logits = linear_map.linear(x, w)
    probs = numerics.softmax(logits)
    order = contract.top_k(logits, w.shape[1])
    ranked = np.take_along_axis(probs, order, axis=1)
    before = np.zeros_like(ranked)
    before[:, 1:] = np.cumsum(ranked, axis=1)[:, :-1]
    # a sum that should be p is not less than p by rounding alone
    kept = before < p - 4 * np.finfo(x.dtype).eps
    kept[:, 0] = True
    kept &= valid[:, None]
    token = np.nonzero(kept)[0]
    expert = order[kept]
    demand = np.zeros(probs.shape, bool)
    demand[token, expert] = True
    routing = Routing(token, expert, probs[token, expert], logits, probs, demand)
    return routing, Cache(x, w, probs, order, ranked, before, p, kept, token, expert, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). Which experts are kept is held."""
    dscore = weighting.probs_backward(dweight, cache.token, cache.expert, cache.probs)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Which experts are kept is held."""
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SOFTMAX,
    Stage(
        "order",
        "",
        {"order": "N E", "ranked": "N E"},
        "All experts of a token, the most probable first.",
    ),
    Stage(
        "sum so far",
        r"\mathrm{before}_{nr} = \sum_{q < r} \mathrm{ranked}_{nq}",
        {"before": "N E"},
        "The sum of the more probable ones.",
    ),
    Stage(
        "selection",
        r"\mathrm{kept} = \mathrm{before} < p",
        {"p": "", "kept": "N E", "demand": "N E"},
        "The expert that crosses p is kept.",
    ),
)
BACKWARD: tuple[Stage, ...] = (stages.THROUGH_SOFTMAX, stages.LINEAR_BACKWARD)
