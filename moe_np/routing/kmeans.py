"""k-means routing: a token goes to the experts whose centroids are nearest. The clusters are found
without labels.

Batch k-means: Lloyd 1982, started as k-means++ (Arthur and Vassilvitskii 2007). Online: MacQueen
1967. As a router: Gross et al. 2017 (arXiv 1704.06363); with weights: c-BTM (Gururangan et al.
2023, arXiv 2303.14177).

    symbol               here                shape     meaning
    c_m                  centroids           (E, D)
    ‖x − c_m‖²           distances           (N, E)    squared
    −‖x − c_m‖²/T        logits              (N, E)    T: temperature
    softmax of those     probs               (N, E)
    n_m                  count               (E,)      tokens that centroid m is the mean of

weights  "one"           every chosen expert counts fully; the task has no gradient to the centroids (Gross)
         "softmax"       the probabilities of the chosen, as they are
         renormalise=True: divided by their sum; needs k of at least 2, as every renormalised gate (errata 4)

k-means itself moves the centroids by `fit` or `online`, both of which return new ones. Whoever
wants the task to move them takes the gradient instead; it is that of the weights and of a loss on
the logits, choice held.
"""

import math
from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract
from moe_np.routing.contract import Routing

WEIGHTS = ("one", "softmax")


class Cache(NamedTuple):
    x: np.ndarray
    centroids: np.ndarray
    probs: np.ndarray  # (N, E)
    choice: np.ndarray  # (N, k) nearest first
    weight: np.ndarray  # (N, k)
    weights: str
    renormalise: bool
    temperature: float
    valid: np.ndarray | None  # (N,) bool


def init(rng, d_model, n_experts, *, scale=1.0, dtype=np.float64):
    """{"centroids": (E, D)}, normal with standard deviation `scale`. Where there are tokens, `fit`
    starts better.
    """
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts)
    return {"centroids": (rng.normal(size=(E, D)) * scale).astype(dtype)}


def distances(x, centroids):
    """‖x_n − c_m‖² = ‖x_n‖² − 2 x_n·c_m + ‖c_m‖², not below 0 in spite of rounding. -> (N, E)"""
    return np.maximum(
        (x * x).sum(1)[:, None] - 2 * x @ centroids.T + (centroids * centroids).sum(1), 0
    )


def route(params, x, *, k=1, weights, renormalise=False, temperature=1.0, valid=None, training=None, rng=None):
    """Send each token to its k nearest centroids: x (N, D) -> (Routing with A = k·N, cache). `rng`
    is not used.
    """
    centroids = params["centroids"]
    x = contract.check_tokens(x, {"centroids": centroids.T}, "centroids")
    k = contract.check_k(k, len(centroids))
    checks.choice("weights", weights, WEIGHTS)
    contract.check_renormalise(renormalise, k)
    if renormalise and weights == "one":
        raise InputError("renormalise: wanted False with weights='one', got True")
    contract.check_training(training, rng)
    valid = None if valid is None else contract.check_valid(valid, len(x))
    if not (
        isinstance(temperature, (int, float)) and math.isfinite(temperature) and temperature > 0
    ):
        raise InputError(f"temperature: wanted a finite number above 0, got {temperature!r}")
    logits = -distances(x, centroids) / temperature
    probs = numerics.softmax(logits)
    choice = contract.top_k(logits, k)
    if weights == "one":
        weight = np.ones(choice.shape, x.dtype)
    elif not renormalise:
        weight = np.take_along_axis(probs, choice, axis=1)
    else:
        weight = numerics.softmax(np.take_along_axis(logits, choice, axis=1))
    token, expert, row_weight = contract.rows(choice, weight, valid)
    demand = contract.demand_of(choice, len(centroids))
    if valid is not None:
        demand &= valid[:, None]
    routing = Routing(token, expert, row_weight, logits, probs, demand)
    cache = Cache(x, centroids, probs, choice, weight, weights, renormalise, temperature, valid)
    return routing, cache


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx, {"centroids"}. With weights "one", dweight has
    nothing to move.
    """
    x, centroids, temperature = cache.x, cache.centroids, cache.temperature
    pull = logits_backward(dweight, dlogits, cache) * (2 / temperature)
    # d(−‖x − c‖²/T) = (2/T) (x − c)·(dc − dx)
    dx = pull @ centroids - x * pull.sum(axis=1, keepdims=True)
    return dx, {"centroids": pull.T @ x - centroids * pull.sum(axis=0)[:, None]}


def logits_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The choice is held."""
    probs, choice, weight, valid = cache.probs, cache.choice, cache.weight, cache.valid
    dweight = contract.rows_backward(dweight, choice.shape, valid)
    spread = np.zeros_like(probs)
    if cache.weights == "softmax" and not cache.renormalise:
        np.put_along_axis(spread, choice, dweight, axis=1)
        spread = numerics.softmax_backward(spread, probs)
    elif cache.renormalise:
        np.put_along_axis(spread, choice, numerics.softmax_backward(dweight, weight), axis=1)
    return contract.with_dlogits(spread, dlogits, valid)


# --- the centroids --------------------------------------------------------------------------------


def spread_out(rng, x, n_experts):
    """k-means++: the first centroid is any token, each next one a token drawn in proportion to its
    squared distance from the nearest centroid so far. x (N, D), N >= n_experts -> (E, D).
    """
    rows = [int(rng.integers(len(x)))]
    nearest = distances(x, x[rows])[:, 0].astype(np.float64)
    for _ in range(n_experts - 1):
        total = nearest.sum()
        # fewer distinct tokens than centroids: any token will do
        p = nearest / total if total > 0 else None
        rows.append(int(rng.choice(len(x), p=p)))
        nearest = np.minimum(nearest, distances(x, x[rows[-1:]])[:, 0])
    return x[rows]


def sums(x, expert, n_experts):
    """Sum (E, D) and number (E,) of the tokens of each expert."""
    onehot = (expert[:, None] == np.arange(n_experts)).astype(x.dtype)
    return onehot.T @ x, onehot.sum(axis=0)


def fit(rng, x, n_experts, *, rounds=100):
    """Lloyd's rounds from a k-means++ start, until no token changes its cluster or `rounds` are
    over.

    c_m ← mean of the tokens nearest to c_m; a centroid without tokens stays. Returns ({"centroids":
    (E, D)}, inertia): inertia is the list of Σ_n min_m ‖x_n − c_m‖² at each round, which never
    rises.
    """
    x = checks.array("x", x, ("N", "D"))
    E = checks.integer("n_experts", n_experts)
    if len(x) < E:
        raise InputError(
            f"x: wanted at least the {E} tokens that the centroids start from, got {len(x)}"
        )
    centroids, before, inertia = spread_out(rng, x, E), None, []
    for _ in range(checks.integer("rounds", rounds)):
        d = distances(x, centroids)
        expert = d.argmin(axis=1)
        inertia.append(float(d.min(axis=1).sum()))
        if before is not None and (expert == before).all():
            break
        total, count = sums(x, expert, E)
        centroids = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centroids)
        before = expert
    return {"centroids": centroids}, inertia


def online(params, x, count=None, *, rate=None):
    """Move each centroid towards the new tokens nearest to it; returns (new params, new count),
    changes nothing.

    c_m ← c_m + Σ (x − c_m)/n_m over its new tokens, with n_m already counting them: c_m stays the
    mean of all it was ever given, its start counting as one token where `count` is None. Token by
    token this is MacQueen's rule; a batch is assigned as one. A `rate` in place of 1/n_m forgets:
    c_m ← c_m + rate · (mean of its new tokens − c_m).
    """
    centroids = params["centroids"]
    x = contract.check_tokens(x, {"centroids": centroids.T}, "centroids")
    E = len(centroids)
    count = np.ones(E, x.dtype) if count is None else checks.array("count", count, (E,))
    total, new = sums(x, distances(x, centroids).argmin(axis=1), E)
    count = count + new
    step = 1 / np.maximum(count, 1) if rate is None else rate / np.maximum(new, 1)
    moved = centroids + (step[:, None] * (total - new[:, None] * centroids)).astype(x.dtype)
    return {"centroids": moved}, count
