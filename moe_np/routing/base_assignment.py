"""BASE, equally many tokens for every expert by a linear assignment: Lewis et al. 2021 (arXiv
2103.16716), section 3.

    paper        here       shape     meaning
    h_t          x          (N, D)    token
    w_e          w[:, e]    (D, E)    expert embedding (centroid)
    h_t·w_e      logits     (N, E)    score
    a_t          expert     (N,)      expert of token t
    σ(h_t·w_a)   weight     (N,)      gate of the chosen expert
    –            probs      (N, E)    sigmoid of every score; the rows do not sum to 1

    training:    a maximises Σ_t h_t·w_{a_t} with N/E tokens for every expert
    evaluation:  a_t = argmax_e h_t·w_e

There is no load-balancing loss. The gate's gradient pulls a centroid towards tokens that gain from
its expert. The layer's output is σ(h·w_a) f(h) + h; the + h is the residual outside of this router,
and f has none itself.

Where E does not divide N (the paper's batches are cut so that it does) every expert takes
floor(N/E) or ceil(N/E) tokens, and which experts take one token more is chosen for the sum too. The
paper finds the assignment by an auction among the workers; here it is SciPy's Jonker-Volgenant
algorithm: the same optimum, exact, but about N³ operations (a tenth of a second for 1,000 tokens,
15 s for 4,000). Among equal optima SciPy decides, not the lowest index. The balanced form looks at
the whole batch and is not causal; the greedy form is.
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
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, stages, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = False  # in training
EXAMPLE: Options = {}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    token: ArrayA
    expert: ArrayA
    weight: ArrayA
    training: bool
    valid: ArrayN


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 0.1, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E)}: `scale` times orthonormal columns (with E > D orthonormal rows, because the
    columns cannot be orthonormal).
    """
    D, E = contract.check_init(rng, d_model, n_experts, scale, dtype)
    q, r = np.linalg.qr(rng.normal(size=(max(D, E), min(D, E))))
    q = q * np.sign(np.diag(r))  # without this the directions are not uniform
    return {"w": (scale * (q if D >= E else q.T)).astype(dtype)}


def assign(scores: ArrayNE) -> ArrayN:
    """The best balanced assignment: scores (N, E) -> expert (N,), every expert floor(N/E) or
    ceil(N/E) times.

    Each expert is repeated once per place. With a remainder it has one place more than floor(N/E),
    and tokens that do not exist, of score 0 there and forbidden elsewhere, take the extra places of
    all but N mod E experts.
    """
    from scipy.optimize import linear_sum_assignment

    N, E = scores.shape
    floor, remainder = divmod(N, E)
    # place p belongs to expert p mod E, extra places last
    places = np.tile(scores, (1, floor + (remainder > 0)))
    if remainder:
        absent = np.full((E - remainder, places.shape[1]), -np.inf)
        absent[:, floor * E :] = 0
        places = np.concatenate([places, absent])
    _, place = linear_sum_assignment(places, maximize=True)
    return place[:N] % E


def route(
    params: Params,
    x: ArrayND,
    *,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """One expert per token, balanced in training and greedy in evaluation: x (N, D) -> (Routing,
    cache). No noise.

    The demand of a token is the expert that it was assigned to.
    """
    x, w = contract.check_inputs(params, x)
    training, _ = contract.check_training(training, rng)
    valid = contract.check_valid(valid, len(x))
    token = np.flatnonzero(valid)
    logits = linear_map.linear(x, w)
    probs = numerics.sigmoid(logits)
    expert = assign(logits[token]) if training else logits[token].argmax(axis=1)
    weight = probs[token, expert]
    demand = np.zeros(probs.shape, bool)
    demand[token, expert] = True
    routing = Routing(token, expert, weight, logits, probs, demand)
    return routing, Cache(x, w, token, expert, weight, training, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The assignment is held."""
    dscore = np.zeros((len(cache.x), cache.w.shape[1]), cache.x.dtype)
    dweight = weighting.check_dweight(dweight, len(cache.token))
    dscore[cache.token, cache.expert] = numerics.sigmoid_backward(dweight, cache.weight)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. The assignment is held."""
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SIGMOID,
    Stage(
        "selection",
        r"\text{maximise } \sum_n \mathrm{logits}_{n, \mathrm{expert}_n} "
        r"\text{ with } N/E \text{ each}",
        {"demand": "N E"},
        when=("training", True),
    ),
    Stage(
        "selection",
        r"\mathrm{expert}_n = \arg\max_m \mathrm{logits}_{nm}",
        {"demand": "N E"},
        when=("training", False),
    ),
)
BACKWARD: tuple[Stage, ...] = (stages.THROUGH_SIGMOID, stages.LINEAR_BACKWARD)
