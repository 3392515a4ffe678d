"""Switch routing, one expert a token: Fedus, Zoph and Shazeer 2021 (arXiv 2101.03961), sections 2.1
and 2.2.

    p_i(x) = exp(h(x)_i) / Σ_j exp(h(x)_j),  h(x) = W_r·x                                  (1)
    y = p_i(x) E_i(x),  i the arg-max                                                      (2)
    expert capacity = tokens / experts · capacity factor                                   (3)

    paper            here       shape     meaning
    W_r              w          (D, E)    router matrix
    h(x)             logits     (N, E)
    p(x)             probs      (N, E)    softmax over all E
    arg-max          choice     (N,)
    p_i(x)           weight     (A,)      A <= N: one row for each token that found a place

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
from moe_np.base.checks import InputError
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    seen: np.ndarray  # (N, D) what the router saw: x, or x times the jitter
    factor: np.ndarray | None  # (N, D) the jitter, None without
    w: np.ndarray
    probs: np.ndarray  # (N, E)
    choice: np.ndarray  # (N,)
    token: np.ndarray  # (A,) the tokens that found a place


def init(rng, d_model, n_experts, *, scale=0.1**0.5, dtype=np.float64):
    """{"w": (D, E)}, normal with standard deviation scale/√D, cut at two of them. Section 2.4
    gives the variance s/D with s = 0.1: scale is √s.
    """
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts)
    cut = ndtri(rng.uniform(ndtr(-2), ndtr(2), size=(D, E)))
    return {"w": (cut * np.sqrt(scale**2 / D)).astype(dtype)}


def route(params, x, *, capacity_factor=None, jitter=0.0, valid=None, training=None, rng=None):
    """Send each token to its most probable expert while that has room: x (N, D) -> (Routing,
    cache).

    capacity_factor   C = ceil(factor · N/E) tokens an expert; None: no limit
    jitter            ε: with `rng`, the router's input is multiplied by uniform numbers in [1 − ε, 1 + ε]
    valid             (N,) bool: tokens outside take no place, get no row and do not count in N
    """
    x, w = contract.check_tokens(x, params), params["w"]
    if not (isinstance(jitter, (int, float)) and 0 <= jitter < 1):
        raise InputError(
            f"jitter: wanted a number from 0 up to but not including 1, got {jitter!r}"
        )
    _, rng = contract.check_training(training, rng, "the jitter" if jitter > 0 else None)
    valid = contract.check_valid(valid, len(x))
    seen, factor = x, None
    if rng is not None and jitter > 0:
        factor = np.ones_like(x)
        factor[valid] = rng.uniform(1 - jitter, 1 + jitter, size=(valid.sum(), x.shape[1]))
        seen = x * factor
    logits = seen @ w
    probs = numerics.softmax(logits)
    choice = contract.top_k(logits, 1)[:, 0]
    token = np.flatnonzero(valid)
    if capacity_factor is not None:
        C = contract.capacity(len(token), w.shape[1], 1, capacity_factor)
        token = token[contract.within_capacity(choice[token], w.shape[1], C)]
    demand = contract.demand_of(choice[:, None], w.shape[1]) & valid[:, None]
    routing = Routing(token, choice[token], probs[token, choice[token]], logits, probs, demand)
    return routing, Cache(seen, factor, w, probs, choice, token)


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Choice, places and jitter are held."""
    dprobs = np.zeros_like(cache.probs)
    dprobs[cache.token, cache.choice[cache.token]] = dweight
    dscore = numerics.softmax_backward(dprobs, cache.probs)
    dseen, dw = contract.linear_backward(
        dscore if dlogits is None else dscore + dlogits, cache.seen, cache.w
    )
    return (dseen if cache.factor is None else dseen * cache.factor), {"w": dw}
