"""Gradient estimators for a hard choice of one expert: REINFORCE and the straight-through estimator
(Bengio, Léonard and Courville 2013, arXiv 1308.3432).

    paper              here         shape     meaning
    a                  logits       (N, E)    x·w; in the binary form any shape
    σ(a)               probs        (N, E)    softmax; in the binary form the sigmoid
    h                  onehot       (N, E)    the choice: drawn from probs in training, else the
                                              arg-max; it is the routing's demand
    L                  loss         (N,)      each token's own loss
    –                  baseline               a number, or (N,), that does not depend on this
                                              token's choice

The weight of the chosen expert is 1, whatever its probability; its true derivative is 0. What
stands in for it:

REINFORCE   dlogits = (h − σ)(L − baseline): the gradient of the expected loss Σ_i σ_i L_i, without
            bias but noisy. A baseline lowers the noise and leaves the mean. It needs the loss and
            no derivative of it, so it comes in as a loss on the logits does: add
            `reinforce(routing, loss, baseline)` to the dlogits of the balance losses. dweight is
            not used.
Straight-   dσ = dh: the gradient of the hard weights h is passed to the probabilities as if h were
through     σ, and then through the softmax. Biased. With rows="all" every expert is computed (those
            that are not chosen with weight 0), so that the layer's dweight is complete: then it is
            exact where a token's loss is linear in h. With rows="chosen" the rest of dh is not
            known and counts as 0, and it is biased there too.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import (
    Array,
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

ESTIMATORS = ("reinforce", "straight_through")
ROWS = ("chosen", "all")

CAUSAL = True
EXAMPLE: Options = {"estimator": "straight_through"}

init = top_k.init  # {"w": (D, E)}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    probs: ArrayNE
    token: ArrayA
    expert: ArrayA
    estimator: str
    training: bool
    valid: ArrayN


def draw(probs: ArrayNE, rng: Rng | None) -> ArrayN:
    """One expert (N,) per token: i with probability probs_i, from one uniform number per token; the
    arg-max without rng.
    """
    if rng is None:
        return probs.argmax(axis=1)
    u = rng.random(len(probs)) * probs.sum(axis=1)  # the sum is 1 but for rounding
    return np.minimum((np.cumsum(probs, axis=1) <= u[:, None]).sum(axis=1), probs.shape[1] - 1)


def route(
    params: Params,
    x: ArrayND,
    *,
    estimator: str,
    rows: str = "chosen",
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Choose one expert per token with weight 1: x (N, D) -> (Routing, cache). Drawn in training,
    the most probable one in evaluation.

    A = N, or N·E with rows="all" (straight-through only), where the weight of those not chosen is
    0; `demand` is the choice either way.
    """
    x, w = contract.check_inputs(params, x)
    checks.choice("estimator", estimator, ESTIMATORS)
    if checks.choice("rows", rows, ROWS) == "all" and estimator == "reinforce":
        raise InputError(
            "rows: wanted 'chosen' with reinforce, which does not use the outputs of the experts "
            "that are not chosen; got 'all'"
        )
    training, rng = contract.check_training(training, rng, "the choice of an expert")
    valid = contract.check_valid(valid, len(x))
    logits = linear_map.linear(x, w)
    probs = numerics.softmax(logits)
    onehot = np.zeros(probs.shape, bool)
    onehot[np.flatnonzero(valid), draw(probs[valid], rng)] = True
    token, expert = np.nonzero(onehot | (valid[:, None] & (rows == "all")))
    weight = onehot[token, expert].astype(x.dtype)
    routing = Routing(token, expert, weight, logits, probs, onehot)
    return routing, Cache(x, w, probs, token, expert, estimator, training, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). With reinforce, dweight is not
    used.
    """
    if cache.estimator == "straight_through":
        dscore = weighting.probs_backward(dweight, cache.token, cache.expert, cache.probs)
    else:
        dscore = np.zeros_like(cache.probs)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. With reinforce, dweight is not
    used.
    """
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw}


def reinforce(routing: Routing, loss: ArrayN, baseline: float | ArrayN = 0.0) -> ArrayNE:
    """(h − σ)(L − baseline) -> dlogits (N, E), for the total Σ_n loss_n, each loss_n seen under the
    drawn choice.

    For a mean over tokens divide loss and baseline by N alike (errata 16). Unbiased only for
    choices drawn with an rng. Padding has no choice h; the router's backward pass leaves it out.
    """
    routing = contract.check_routing(routing)
    loss = checks.array("loss", loss, (len(routing.demand),))
    baseline = _check_baseline(baseline, loss.shape)
    advantage = (loss - baseline)[:, None]
    return (advantage * (routing.demand - routing.probs)).astype(routing.probs.dtype)


def _check_baseline(baseline, shape):
    """A finite number, or an array of them of this shape."""
    if isinstance(baseline, (list, tuple, np.ndarray)) and np.ndim(baseline):
        return checks.array("baseline", baseline, shape)
    return checks.number("baseline", baseline)


def best_baseline(routing: Routing, loss: ArrayN) -> float:
    """Σ ‖h − σ‖² L / Σ ‖h − σ‖²: the one number with the least variance, estimated from a batch
    (their Corollary 1).

    Use it for the *next* batch: a baseline that has seen this token's own choice is a little
    biased.
    """
    routing = contract.check_routing(routing)
    loss = checks.array("loss", loss, (len(routing.demand),))
    squared = ((routing.demand - routing.probs) ** 2).sum(axis=1)
    return float((squared * loss).sum() / max(squared.sum(), np.finfo(squared.dtype).tiny))


# --- a binary unit: one expert, on or off (their section 3) ---------------------------------------


def bernoulli(a: Array, rng: Rng | None = None) -> tuple[Array, Array]:
    """h = 1 with probability σ(a), else 0; without rng h = 1 where σ(a) > ½. -> (h, sigma), both
    shaped as a.
    """
    if rng is not None:
        checks.generator("rng", rng)
    sigma = numerics.sigmoid(checks.array("a", a, None))
    u = 0.5 if rng is None else rng.random(np.shape(a))
    return (u < sigma).astype(sigma.dtype), sigma


def bernoulli_reinforce(
    h: Array, sigma: Array, loss: Array, baseline: float | Array = 0.0
) -> Array:
    """da = (h − σ)(L − baseline): without bias the gradient of σ L(1) + (1 − σ) L(0)."""
    h = checks.array("h", h, None)
    sigma = checks.array("sigma", sigma, h.shape)
    loss = checks.array("loss", loss, None)
    return (h - sigma) * (loss - _check_baseline(baseline, loss.shape))


def bernoulli_straight_through(dh: Array, sigma: Array | None = None) -> Array:
    """da = dh (their straight-through estimator), or dh · σ(1 − σ) if sigma is given: exact for a
    loss linear in h.
    """
    return dh if sigma is None else numerics.sigmoid_backward(dh, sigma)


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SOFTMAX,
    Stage(
        "selection",
        r"h_n \sim \mathrm{probs}_n",
        {"demand": "N E"},
        "One expert per token, drawn from the probabilities.",
        when=("training", True),
    ),
    Stage(
        "selection",
        r"h_n = \arg\max_i \mathrm{probs}_{ni}",
        {"demand": "N E"},
        "One expert per token: in evaluation the most probable one.",
        when=("training", False),
    ),
)
BACKWARD: tuple[Stage, ...] = (
    stages.THROUGH_SOFTMAX._replace(
        note="The true gradient is 0. In its place dweight is passed on as if the weights were "
        "probs.",
        when=("estimator", "straight_through"),
    ),
    Stage(
        "logits",
        "",
        stages.DLOGITS,
        "dweight is not used: (demand − probs)(loss − baseline) has to come in as "
        "dlogits_of_losses.",
        when=("estimator", "reinforce"),
    ),
    stages.LINEAR_BACKWARD,
)
