"""Switch routing, one expert per token: Fedus, Zoph and Shazeer 2021 (arXiv 2101.03961), sections
2.1 and 2.2.

    p_i(x) = exp(h(x)_i) / Σ_j exp(h(x)_j),  h(x) = W_r·x                                  (1)
    y = p_i(x) E_i(x),  i the arg-max                                                      (2)
    expert capacity = tokens / experts · capacity factor                                   (3)

    paper            here       shape     meaning
    W_r              w          (D, E)    router matrix
    h(x)             logits     (N, E)
    p(x)             probs      (N, E)    softmax over all E
    arg-max          choice     (N,)
    p_i(x)           weight     (A,)      A <= N: one row for each token that found a place
    expert capacity  C                    tokens that one expert takes; None: no limit

The weight is the probability itself. Renormalised over its one expert it would be 1, and the router
would learn nothing from the task; this way every logit gets a gradient. An expert takes tokens in
their order and drops the rest: a dropped token has no row, adds 0 here and passes through the
residual outside the layer. Jitter multiplies what the router sees by uniform noise; the experts see
x itself.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from moe_np.base import checks, numerics
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
from moe_np.routing import contract, linear_map, stages, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True  # places are given in the order of the tokens
EXAMPLE: Options = {"capacity_factor": 1.25}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    seen: ArrayND  # what the router saw: x, or x times the jitter
    factor: ArrayND | None  # the jitter, None without
    w: ArrayDE
    probs: ArrayNE
    choice: ArrayN
    token: ArrayA  # the tokens that found a place
    C: int | None
    valid: ArrayN


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 0.1**0.5, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E)}, normal with standard deviation scale/√D and cut at two of them.

    Section 2.4 states the variance, s/D with s = 0.1: scale is √s.
    """
    D, E = contract.check_init(rng, d_model, n_experts, scale, dtype)
    cut = ndtri(rng.uniform(ndtr(-2), ndtr(2), size=(D, E)))
    return {"w": (cut * np.sqrt(scale**2 / D)).astype(dtype)}


def route(
    params: Params,
    x: ArrayND,
    *,
    capacity_factor: float | None = None,
    jitter: float = 0.0,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its most probable expert while that has room: x (N, D) -> (Routing,
    cache).

    capacity_factor   C = ceil(factor · N/E) tokens per expert, N without padding; None: no limit
    jitter            ε: in training the router's input is multiplied by uniform numbers in
                      [1 − ε, 1 + ε]
    """
    x, w = contract.check_inputs(params, x)
    jitter = checks.number("jitter", jitter, minimum=0, less_than=1)
    _, rng = contract.check_training(training, rng, "the jitter" if jitter > 0 else None)
    valid = contract.check_valid(valid, len(x))
    factor = _jitter(jitter, x, valid, rng) if rng is not None and jitter > 0 else None
    seen = x if factor is None else x * factor
    logits = linear_map.linear(seen, w)
    probs = numerics.softmax(logits)
    choice = contract.top_k(logits, 1)[:, 0]
    token = np.flatnonzero(valid)
    C = None
    if capacity_factor is not None:
        C = contract.capacity(len(token), w.shape[1], 1, capacity_factor)
        token = token[contract.within_capacity(choice[token], w.shape[1], C)]
    demand = contract.demand_of(choice[:, None], w.shape[1], valid)
    routing = Routing(token, choice[token], probs[token, choice[token]], logits, probs, demand)
    return routing, Cache(seen, factor, w, probs, choice, token, C, valid)


def _jitter(jitter, x, valid, rng):
    """Uniform factors (N, D), 1 for padding."""
    factor = np.ones_like(x)
    factor[valid] = rng.uniform(1 - jitter, 1 + jitter, size=(valid.sum(), x.shape[1]))
    return factor


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). Choice and places are held."""
    expert = cache.choice[cache.token]
    dscore = weighting.probs_backward(dweight, cache.token, expert, cache.probs)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Choice, places and jitter are
    held.
    """
    dscore = logits_backward(dweight, dlogits, cache)
    dseen, dw = linear_map.linear_backward(dscore, cache.seen, cache.w)
    return (dseen if cache.factor is None else dseen * cache.factor), {"w": dw}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    Stage(
        "jitter",
        r"\mathrm{seen} = x \cdot \mathrm{factor}",
        {"factor": "N D", "seen": "N D"},
        "The router sees this, the experts see x.",
        when=("factor", True),
    ),
    stages.LINEAR._replace(when=("factor", False)),
    stages.LINEAR._replace(equation=r"\mathrm{logits} = \mathrm{seen} \, w", when=("factor", True)),
    stages.SOFTMAX,
    Stage(
        "selection",
        r"\mathrm{choice}_n = \arg\max_i \mathrm{logits}_{ni}",
        {"choice": "N", "demand": "N E"},
        "One expert per token.",
    ),
    Stage(
        "places",
        r"\text{an expert takes its first } C",
        {"C": "", "token": "A"},
        "Tokens in their order; those that find no place are not in the list.",
        when=("C", True),
    ),
)
BACKWARD: tuple[Stage, ...] = (
    stages.THROUGH_SOFTMAX,
    stages.LINEAR_BACKWARD._replace(when=("factor", False)),
    stages.LINEAR_BACKWARD._replace(
        equation=r"dw = \mathrm{seen}^\top d\mathrm{logits}, "
        r"\quad dx = d\mathrm{logits} \, w^\top \cdot \mathrm{factor}",
        when=("factor", True),
    ),
)
