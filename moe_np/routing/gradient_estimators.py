"""A hard choice of one expert, and two gradients for it (Bengio, Léonard and Courville 2013, arXiv
1308.3432).

    paper              here         shape     meaning
    a                  logits       (N, E)    x·w; in the binary form any shape
    σ(a)               probs        (N, E)    softmax; in the binary form the sigmoid
    h                  onehot       (N, E)    the choice: drawn from probs with an rng, else the arg-max
    L                  loss         (N,)      each token's own loss
    –                  baseline               a number, or (N,), that does not depend on this token's choice

The weight of the chosen expert is 1, whatever its probability; its true derivative is 0. What
stands in for it:

REINFORCE   dlogits = (h − σ)(L − baseline): the gradient of the expected loss Σ_i σ_i L_i, without bias but noisy.
            A baseline lowers the noise and leaves the mean. It needs the loss and no derivative of it, so it comes
            in as a loss on the logits does: add `reinforce(routing, loss, baseline)` to the dlogits of the balance
            losses. dweight is not used.
Straight-   dσ = dh: the gradient of the hard weights h is passed to the probabilities as if h were σ, and then
through     through the softmax. Biased. With rows="all" every expert is computed (the others with weight 0), so
            that the layer's dweight is complete: then it is exact where a token's loss is linear in h. With
            rows="chosen" the others' part of dh is not known and counts as 0, and it is biased there too.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract, top_k
from moe_np.routing.contract import Routing

ESTIMATORS = ("reinforce", "straight_through")
ROWS = ("chosen", "all")

init = top_k.init  # {"w": (D, E)}


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    probs: np.ndarray  # (N, E)
    token: np.ndarray  # (A,)
    expert: np.ndarray  # (A,)
    estimator: str


def draw(probs, rng):
    """One expert a token: i with probability probs_i, from one uniform number a token; the arg-max
    without rng. (N,)
    """
    if rng is None:
        return probs.argmax(axis=1)
    u = rng.random(len(probs)) * probs.sum(axis=1)  # the sum is 1 but for rounding
    return np.minimum((np.cumsum(probs, axis=1) <= u[:, None]).sum(axis=1), probs.shape[1] - 1)


def route(params, x, *, estimator, rows="chosen", valid=None, training=None, rng=None):
    """Choose one expert a token with weight 1: x (N, D) -> (Routing, cache). Without `rng` the most
    probable one.

    A = N, or N·E with rows="all" (straight-through only), the others' weight being 0; `demand` is
    the choice either way.
    """
    x, w = contract.check_tokens(x, params), params["w"]
    checks.choice("estimator", estimator, ESTIMATORS)
    if checks.choice("rows", rows, ROWS) == "all" and estimator == "reinforce":
        raise InputError(
            "rows: wanted 'chosen' with reinforce, which has no use for the others' outputs; got 'all'"
        )
    _, rng = contract.check_training(training, rng, "the choice of an expert")
    valid = contract.check_valid(valid, len(x))
    logits = x @ w
    probs = numerics.softmax(logits)
    token, onehot = np.flatnonzero(valid), np.zeros(probs.shape, bool)
    onehot[token, draw(probs[valid], rng)] = True
    token, expert = np.nonzero(onehot | (valid[:, None] & (rows == "all")))
    weight = onehot[token, expert].astype(x.dtype)
    return Routing(token, expert, weight, logits, probs, onehot), Cache(
        x, w, probs, token, expert, estimator
    )


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. With reinforce, dweight is not
    used.
    """
    x, w, probs, token, expert, estimator = cache
    spread = np.zeros_like(probs)
    if estimator == "straight_through":
        spread[token, expert] = dweight
        spread = numerics.softmax_backward(spread, probs)
    dx, dw = contract.linear_backward(spread if dlogits is None else spread + dlogits, x, w)
    return dx, {"w": dw}


def reinforce(routing, loss, baseline=0.0):
    """(h − σ)(L − baseline) -> dlogits (N, E), for the total Σ_n loss_n, each loss_n seen under the
    drawn choice.

    For a mean over tokens divide loss and baseline by N alike (errata 16). Unbiased only for
    choices drawn with an rng.
    """
    loss = checks.array("loss", loss, (len(routing.demand),))
    return ((loss - baseline)[:, None] * (routing.demand - routing.probs)).astype(
        routing.probs.dtype
    )


def best_baseline(routing, loss):
    """Σ ‖h − σ‖² L / Σ ‖h − σ‖²: the one number with the least variance, estimated from a batch
    (their Corollary 1).

    Use it for the *next* batch: a baseline that has seen this token's own choice is a little
    biased.
    """
    loss = checks.array("loss", loss, (len(routing.demand),))
    squared = ((routing.demand - routing.probs) ** 2).sum(axis=1)
    return float((squared * loss).sum() / max(squared.sum(), np.finfo(squared.dtype).tiny))


# --- a binary unit: one expert, on or off ---------------------------------------------------------


def bernoulli(a, rng=None):
    """h = 1 with probability σ(a), else 0; without rng h = 1 where σ(a) > ½. -> (h, sigma), both
    shaped as a.
    """
    sigma = numerics.sigmoid(a)
    u = 0.5 if rng is None else rng.random(np.shape(a))
    return (u < sigma).astype(sigma.dtype), sigma


def bernoulli_reinforce(h, sigma, loss, baseline=0.0):
    """da = (h − σ)(L − baseline): without bias the gradient of σ L(1) + (1 − σ) L(0)."""
    return (h - sigma) * (loss - baseline)


def bernoulli_straight_through(dh, sigma=None):
    """da = dh (their straight-through estimator), or dh · σ(1 − σ) if sigma is given: exact for a
    loss linear in h.
    """
    return dh if sigma is None else numerics.sigmoid_backward(dh, sigma)
