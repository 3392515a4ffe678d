"""Dense softmax gate, every token to every expert: Jordan and Jacobs 1994; Shazeer et al. 2017
(arXiv 1701.06538), section 2.1, eq. (2).

    paper            here       shape     meaning
    W_g              w          (D, E)    router matrix
    x·W_g            logits     (N, E)
    G_σ(x)           probs      (N, E)    softmax(x·W_g): the weights of all E experts

The mixture that all sparse gates approximate, with A = N·E assignments. Everything is
differentiated.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayN,
    ArrayND,
    ArrayNE,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, stages, top_k, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {}

init = top_k.init  # {"w": (D, E)}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    probs: ArrayNE
    valid: ArrayN | None


def route(
    params: Params,
    x: ArrayND,
    *,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to all experts: x (N, D) -> (Routing with A = N·E, cache). No noise."""
    x, w = contract.check_inputs(params, x)
    contract.check_training(training, rng)
    valid = contract.check_padding(valid, len(x))
    logits = linear_map.linear(x, w)
    probs = numerics.softmax(logits)
    choice = np.tile(np.arange(w.shape[1]), (len(x), 1))
    demand = contract.demand_of(choice, w.shape[1], valid)
    routing = Routing(*weighting.rows(choice, probs, valid), logits, probs, demand)
    return routing, Cache(x, w, probs, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E), through the softmax."""
    dprobs = weighting.rows_backward(dweight, cache.probs.shape, cache.valid)
    dscore = numerics.softmax_backward(dprobs, cache.probs)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}."""
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SOFTMAX,
    Stage("selection", "", {"demand": "N E"}, "Every token asks for every expert."),
)
BACKWARD: tuple[Stage, ...] = (stages.THROUGH_SOFTMAX, stages.LINEAR_BACKWARD)
