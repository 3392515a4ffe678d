"""GShard's top-2 gate with a random second expert: Lepikhin et al. 2020 (arXiv 2006.16668), section
2.2, Algorithm 1.

    paper            here            shape     meaning
    wg               w               (D, E)    router matrix
    g_{s,e}          probs           (N, E)    softmax over all E (line 2)
    e1, e2           choice          (N, 2)    the two largest
    g1, g2           gates           (N, 2)    g1/(g1 + g2), g2/(g1 + g2) (lines 6, 16)
    rnd              rnd             (N,)      uniform; the second choice is sent if 2·g2 > rnd
                                               (line 19)
    C                C                         places of an expert, for first and second choices
    S, G_{s,e}       N, weight       (A,)      the gates of the choices that were sent and found a
                                               place

An expert's places go to the first choices of all tokens, in token order, then to the second ones
(two loops, lines 4 and 14). The two gates are renormalised before any capacity is applied: a token
whose first choice is dropped keeps its g2 < 1. A later token's first choice can thus take the place
of an earlier token's second one: with a capacity the gate is not causal. Line 22 counts a place for
a second choice that the random number has rejected; the Mesh TensorFlow code, which has the same
gate, does not. `variant` chooses between the two.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayN,
    ArrayND,
    ArrayNE,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, stages, top_k, weighting
from moe_np.routing.contract import Routing, Stage

ArrayN2 = Annotated[np.ndarray, "N, 2"]

CAUSAL = False  # with a capacity
EXAMPLE: Options = {"capacity_factor": 1.0}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    choice: ArrayN2
    gates: ArrayN2
    rnd: ArrayN | None  # None in evaluation
    C: int | None
    kept: ArrayN2  # bool: sent and placed
    valid: ArrayN


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E)}, normal with standard deviation scale/√D; at least two experts."""
    checks.integer("n_experts", n_experts, minimum=2)
    return top_k.init(rng, d_model, n_experts, scale=scale, dtype=dtype)


def route(
    params: Params,
    x: ArrayND,
    *,
    capacity_factor: float | None = None,
    variant: str = "paper",
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its best expert and, at random, to its second: x (N, D) -> (Routing,
    cache).

    capacity_factor   C = ceil(factor · 2N/E) places per expert (1 is the paper's C = 2N/E of a
                      group), N without padding; None: no limit
    variant           "paper": a rejected second choice takes a place all the same; "code": it takes
                      none

    In evaluation the second choice is always sent. The group of the paper is the batch here.
    """
    x, w, choice, gates, logits = top_2(params, x)
    checks.choice("variant", variant, ("paper", "code"))
    _, rng = contract.check_training(training, rng, "the random second expert")
    valid = contract.check_valid(valid, len(x))
    both = np.stack([valid, valid], axis=1)
    sent = both.copy()
    rnd = None
    if rng is not None:
        rnd = np.ones(len(x))
        rnd[valid] = rng.random(valid.sum())
        sent[:, 1] &= 2 * gates[:, 1] > rnd
    C = places(valid, logits.shape[1], capacity_factor)
    kept = sent & placed(choice, sent if variant == "code" else both, logits.shape[1], C)
    cache = Cache(x, w, choice, gates, rnd, C, kept, valid)
    return assignments(choice, gates, sent, kept, logits), cache


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). Choices, random numbers and places
    are held.
    """
    dgates = np.zeros_like(cache.gates)
    dgates[cache.kept] = weighting.check_dweight(dweight, int(np.count_nonzero(cache.kept)))
    n_experts = cache.w.shape[1]
    dscore = weighting.renormalised_backward(dgates, cache.gates, cache.choice, n_experts)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Choices, random numbers and places
    are held.
    """
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw}


# --- what every top-2 gate does (ST-MoE uses it too) ----------------------------------------------


def top_2(params: Params, x: ArrayND) -> tuple[ArrayND, ArrayDE, ArrayN2, ArrayN2, ArrayNE]:
    """x -> x and w checked, the experts of the two largest logits (N, 2), their softmax (N, 2), all
    logits (N, E).
    """
    x, w = contract.check_inputs(params, x)
    if w.shape[1] < 2:
        raise InputError(
            f"params['w']: wanted at least 2 experts for two choices, got {w.shape[1]}"
        )
    logits = linear_map.linear(x, w)
    choice = contract.top_k(logits, 2)
    return x, w, choice, weighting.renormalised(logits, choice), logits


def places(valid: ArrayN, n_experts: int, capacity_factor: float | None) -> int | None:
    """The expert capacity C for two choices per token; None: no limit."""
    if capacity_factor is None:
        return None
    return contract.capacity(valid.sum(), n_experts, 2, capacity_factor)


def placed(choice: ArrayN2, queue: ArrayN2, n_experts: int, C: int | None) -> ArrayN2:
    """(N, 2) bool: the choices in the queue (N, 2) that find a place, all first ones before all
    second ones.
    """
    if C is None:
        return queue
    has_place = np.zeros(queue.T.shape, bool)
    has_place[queue.T] = contract.within_capacity(choice.T[queue.T], n_experts, C)
    return has_place.T


def assignments(
    choice: ArrayN2, gates: ArrayN2, sent: ArrayN2, kept: ArrayN2, logits: ArrayNE
) -> Routing:
    """The Routing of the kept choices, token by token, with the sent ones as demand."""
    token, rank = np.nonzero(kept)
    demand = np.zeros(logits.shape, bool)
    demand[np.nonzero(sent)[0], choice[sent]] = True
    probs = numerics.softmax(logits)
    return Routing(token, choice[token, rank], gates[kept], logits, probs, demand)


# --- the stages, for the step view ----------------------------------------------------------------

TWO_LARGEST = (
    stages.LINEAR,
    stages.SOFTMAX,
    Stage(
        "selection",
        r"\mathrm{choice}_n = \text{the two largest}",
        {"choice": "N 2"},
        "Best first.",
    ),
    Stage("gates", stages.of_kept("logits", "gates"), {"gates": "N 2"}, "Before any capacity."),
)
STAGES: tuple[Stage, ...] = (
    *TWO_LARGEST,
    Stage(
        "second choice",
        r"\text{second choice sent if } 2 \, \mathrm{gates}_{n2} > \mathrm{rnd}_n",
        {"rnd": "N"},
        "At random: a second choice of small weight is seldom sent.",
    ),
    Stage(
        "places",
        "",
        {"demand": "N E", "C": "", "kept": "N 2"},
        "kept: sent, and placed. First choices of all tokens come before the second ones.",
    ),
)
BACKWARD: tuple[Stage, ...] = (stages.through_kept("gates"), stages.LINEAR_BACKWARD)
