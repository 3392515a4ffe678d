"""Top-p: as many experts as it takes to reach a probability of p (Huang et al. 2024, arXiv
2403.07652).

    paper                 here       shape     meaning
    W_r                   w          (D, E)    router matrix
    P = Softmax(W_r·x)    probs      (N, E)
    p                     p                    threshold, .4 in the paper
    t                     kept       (N, E)    the fewest experts, most probable first, whose sum reaches p
    g_i                   weight     (A,)      P_i of the kept, not renormalised
    Loss_d                entropy_loss         −Σ P log P, added to the task's loss

A sure token takes one expert, an unsure one several: between 1 and E, the one that crosses p
included. Without the entropy loss the router can lower the task's loss by spreading out until every
token takes most experts; adding the entropy, with a plus sign, makes it prefer to be sure.

Not renormalised, so every logit gets a gradient; where the cut falls is not differentiated.
"""

import math
from typing import NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract, top_k
from moe_np.routing.contract import Routing

init = top_k.init  # {"w": (D, E)}


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    probs: np.ndarray  # (N, E)
    token: np.ndarray  # (A,)
    expert: np.ndarray  # (A,)


def check_p(p):
    """Check the threshold: 0 < p <= 1."""
    if (
        isinstance(p, bool)
        or not isinstance(p, (int, float))
        or not (math.isfinite(p) and 0 < p <= 1)
    ):
        raise InputError(f"p: wanted a number above 0 and at most 1, got {p!r}")
    return float(p)


def route(params, x, *, p, valid=None, training=None, rng=None):
    """Send each token to its fewest experts of total probability >= p: x (N, D) -> (Routing,
    cache). `rng` is not used.

    With p = 1 a token takes all experts, but for those at the end that add nothing to the sum at
    this precision.
    """
    x, w = contract.check_tokens(x, params), params["w"]
    p = check_p(p)
    contract.check_training(training, rng)
    valid = contract.check_valid(valid, len(x))
    logits = x @ w
    probs = numerics.softmax(logits)
    order = contract.top_k(logits, w.shape[1])  # all experts, most probable first
    ranked = np.take_along_axis(probs, order, axis=1)
    before = np.zeros_like(ranked)  # the sum that the better ones reach without it
    before[:, 1:] = np.cumsum(ranked, axis=1)[:, :-1]
    kept = (before < p) & valid[:, None]
    token = np.nonzero(kept)[0]
    expert = order[kept]
    demand = np.zeros(probs.shape, bool)
    demand[token, expert] = True
    return Routing(token, expert, probs[token, expert], logits, probs, demand), Cache(
        x, w, probs, token, expert
    )


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Which experts are kept is held."""
    x, w, probs, token, expert = cache
    dprobs = np.zeros_like(probs)
    dprobs[token, expert] = dweight
    spread = numerics.softmax_backward(dprobs, probs)
    dx, dw = contract.linear_backward(spread if dlogits is None else spread + dlogits, x, w)
    return dx, {"w": dw}


def entropy_loss(routing, valid=None):
    """Mean entropy of the tokens' distributions: (1/N) Σ_n −Σ_e P_ne log P_ne -> (value, dlogits
    (N, E)), in nats.

    dlogits_ne = −P_ne (log P_ne + H_n)/N. Padding (valid[n] = False) does not count, in the sum or
    in N, and gets no gradient. The caller scales both by the loss's weight.
    """
    valid = contract.check_valid(valid, len(routing.logits))
    log_p = numerics.log_softmax(routing.logits)
    probs = np.exp(log_p)
    H = -(probs * log_p).sum(axis=1)
    share = (valid / max(1, valid.sum())).astype(probs.dtype)  # (N,)
    return float(share @ H), -share[:, None] * probs * (log_p + H[:, None])
