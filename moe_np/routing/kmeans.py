"""k-means routing: a token goes to the experts whose centroids are closest. The clusters are
learned without labels.

Batch k-means: Lloyd 1982, initialised by k-means++ (Arthur and Vassilvitskii 2007). Online:
MacQueen 1967. As a router: Gross et al. 2017 (arXiv 1704.06363); with weights: c-BTM (Gururangan et
al. 2023, arXiv 2303.14177).

    symbol               here                shape     meaning
    c_m                  centroids           (E, D)
    ‖x − c_m‖²           distances           (N, E)    squared
    −‖x − c_m‖²/T        logits              (N, E)    T: temperature
    softmax of those     probs               (N, E)
    n_m                  count               (E,)      tokens that centroid m is the mean of

weights  "one"           every chosen expert has weight 1; the task has no gradient to the centroids
                         (Gross et al.)
         "softmax"       the probabilities of the chosen experts, as they are or, with renormalise,
                         divided by their sum (then k has to be at least 2, errata 4)

k-means itself moves the centroids by `fit` or `online`, both of which return new ones. To let the
task move them, take the gradient instead; it is that of the weights and of a loss on the logits,
with the choice held.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.machine import product
from moe_np.base.types import (
    ArrayA,
    ArrayE,
    ArrayN,
    ArrayND,
    ArrayNE,
    ArrayNK,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, stages, weighting
from moe_np.routing.contract import Routing, Stage

ArrayED = Annotated[np.ndarray, "E, D"]

WEIGHTS = ("one", "softmax")
FAR = 30  # an offset is subtracted if it is this many times the spread
CANCELS = 1e3  # a difference of less than this number of roundings of its terms is not trusted

CAUSAL = True
EXAMPLE: Options = {"k": 2, "weights": "softmax"}


CENTROIDS = {"centroids": ("E", "D")}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    centroids: ArrayED
    distances: ArrayNE
    probs: ArrayNE
    choice: ArrayNK  # closest first
    weight: ArrayNK
    weights: str  # "one", "softmax" or "renormalised"
    temperature: float
    valid: ArrayN | None


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"centroids": (E, D)}, normal with standard deviation `scale`. Where there are tokens, `fit`
    gives better initial centroids.
    """
    D, E = contract.check_init(rng, d_model, n_experts, scale, dtype)
    return {"centroids": (rng.normal(size=(E, D)) * scale).astype(dtype)}


def distances(x: ArrayND, centroids: ArrayED) -> ArrayNE:
    """‖x_n − c_m‖² (N, E), never below 0.

    Computed as ‖x_n‖² − 2 x_n·c_m + ‖c_m‖². Where this difference is so small that the rounding of
    its terms shows (tokens far from 0 and close to the centroid), it is the sum of the squares of
    x_n − c_m instead.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        of_x = (x * x).sum(1)[:, None]
        of_c = (centroids * centroids).sum(1)
        squares = np.maximum(of_x - product(2 * x, centroids.T) + of_c, 0)
        rounding = CANCELS * np.finfo(squares.dtype).eps * (of_x + of_c)
        unsure = ~(squares >= rounding)
        for m in np.flatnonzero(unsure.any(axis=0)):
            rows = unsure[:, m]
            squares[rows, m] = ((x[rows] - centroids[m]) ** 2).sum(axis=1)
    if not np.isfinite(squares).all():
        raise InputError(
            "x: wanted numbers whose squared distance from the centroids is below "
            f"{np.finfo(squares.dtype).max:.1e}, the largest of {squares.dtype}, got larger ones"
        )
    return squares


def offset(points: ArrayND) -> Annotated[np.ndarray, "D"]:
    """What to subtract from points (N, D) before differences of sums of them are taken: their mean
    where they are far from 0 and close together, so that these sums would lose the differences to
    rounding; else 0.
    """
    middle = points.mean(axis=0) if len(points) else np.zeros(points.shape[1], points.dtype)
    spread = np.abs(points - middle).max(initial=0)
    is_far = np.abs(middle).max(initial=0) > FAR * spread
    return middle if is_far and len(points) > 1 else np.zeros_like(middle)


def route(
    params: Params,
    x: ArrayND,
    *,
    k: int = 1,
    weights: str,
    renormalise: bool = False,
    temperature: float = 1.0,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its k closest centroids: x (N, D) -> (Routing with A = k·N, cache). No
    noise.

    Raises InputError for renormalise with weights="one", and for a temperature that is not above 0.
    """
    x, centroids = contract.check_inputs(params, x, CENTROIDS)
    k = contract.check_k(k, len(centroids))
    checks.choice("weights", weights, WEIGHTS)
    contract.check_renormalise(renormalise, k)
    if renormalise and weights == "one":
        raise InputError("renormalise: wanted False with weights='one', got True")
    temperature = checks.number("temperature", temperature, greater_than=0)
    contract.check_training(training, rng)
    valid = contract.check_padding(valid, len(x))
    squares = distances(x, centroids)
    logits = -squares / temperature
    probs = numerics.softmax(logits)
    choice = contract.top_k(logits, k)
    if weights == "one":
        weight = np.ones(choice.shape, x.dtype)
    elif renormalise:
        weight = weighting.renormalised(logits, choice)
    else:
        weight = np.take_along_axis(probs, choice, axis=1)
    demand = contract.demand_of(choice, len(centroids), valid)
    routing = Routing(*weighting.rows(choice, weight, valid), logits, probs, demand)
    rule = "renormalised" if renormalise else weights
    cache = Cache(x, centroids, squares, probs, choice, weight, rule, temperature, valid)
    return routing, cache


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The choice is held; with weights
    "one", dweight is not used.
    """
    probs, choice = cache.probs, cache.choice
    dchosen = weighting.rows_backward(dweight, choice.shape, cache.valid)
    if cache.weights == "one":
        dscore = np.zeros_like(probs)
    elif cache.weights == "softmax":
        dscore = weighting.probs_backward(dchosen, np.arange(len(choice))[:, None], choice, probs)
    else:
        dscore = weighting.renormalised_backward(dchosen, cache.weight, choice, probs.shape[1])
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"centroids"}. The choice is held.

    d(−‖x − c‖²/T) = (2/T) (x − c)·(dc − dx)
    """
    x, centroids = cache.x, cache.centroids
    pull = logits_backward(dweight, dlogits, cache) * (2 / cache.temperature)
    middle = offset(centroids)
    x, centroids = x - middle, centroids - middle
    dx = product(pull, centroids) - x * pull.sum(axis=1, keepdims=True)
    return dx, {"centroids": product(pull.T, x) - centroids * pull.sum(axis=0)[:, None]}


# --- the centroids --------------------------------------------------------------------------------


def initial_centroids(rng: Rng, x: ArrayND, n_experts: int) -> ArrayED:
    """k-means++: the first centroid is any token, each next one a token drawn in proportion to its
    squared distance from the closest centroid so far. x (N, D), N >= n_experts -> (E, D).
    """
    rows = [int(rng.integers(len(x)))]
    closest = distances(x, x[rows])[:, 0].astype(np.float64)
    for _ in range(n_experts - 1):
        total = closest.sum()
        # with fewer distinct tokens than centroids any token will do
        p = closest / total if total > 0 else None
        rows.append(int(rng.choice(len(x), p=p)))
        closest = np.minimum(closest, distances(x, x[rows[-1:]])[:, 0])
    return x[rows]


def sums(x: ArrayND, expert: ArrayN, n_experts: int) -> tuple[ArrayED, ArrayE]:
    """Sum (E, D) and number (E,) of the tokens of each expert."""
    onehot = (expert[:, None] == np.arange(n_experts)).astype(x.dtype)
    return product(onehot.T, x), onehot.sum(axis=0)


def fit(rng: Rng, x: ArrayND, n_experts: int, *, rounds: int = 100) -> tuple[Params, list[float]]:
    """Lloyd's rounds from k-means++ centroids, until no token changes its cluster or `rounds` are
    over.

    c_m ← mean of the tokens closest to c_m; a centroid without tokens stays. Returns ({"centroids":
    (E, D)}, inertia): inertia is the list of Σ_n min_m ‖x_n − c_m‖² at each round, which never
    rises.
    """
    x = checks.array("x", x, ("N", "D"))
    E = checks.size("n_experts", n_experts)
    middle = offset(x)
    x = x - middle
    if len(x) < E:
        raise InputError(
            f"x: wanted at least {E} tokens, the number of the centroids, got {len(x)}"
        )
    centroids = initial_centroids(checks.generator("rng", rng), x, E)
    before = None
    inertia = []
    for _ in range(checks.integer("rounds", rounds)):
        squares = distances(x, centroids)
        expert = squares.argmin(axis=1)
        inertia.append(float(squares.min(axis=1).sum()))
        if before is not None and (expert == before).all():
            break
        total, count = sums(x, expert, E)
        centroids = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centroids)
        before = expert
    return {"centroids": centroids + middle}, inertia


def online(
    params: Params, x: ArrayND, count: ArrayE | None = None, *, rate: float | None = None
) -> tuple[Params, ArrayE]:
    """Move each centroid towards the new tokens closest to it; returns (new params, new count).

    c_m ← c_m + Σ (x − c_m)/n_m over its new tokens, with n_m already counting them: c_m stays the
    mean of all tokens it ever got, its initial value counting as one token where `count` is None.
    Token by token this is MacQueen's rule; a batch is assigned as one. A `rate` in place of 1/n_m
    forgets: c_m ← c_m + rate · (mean of its new tokens − c_m).
    """
    x, centroids = contract.check_inputs(params, x, CENTROIDS)
    E = len(centroids)
    count = np.ones(E, x.dtype) if count is None else checks.array("count", count, (E,))
    if (count < 0).any():
        raise InputError(f"count: wanted numbers of at least 0, got {count.min()}")
    if rate is not None:
        rate = checks.number("rate", rate, minimum=0)
    middle = offset(centroids)
    total, new = sums(x - middle, distances(x, centroids).argmin(axis=1), E)
    count = count + new
    factor = 1 / np.maximum(count, 1) if rate is None else rate / np.maximum(new, 1)
    change = (factor[:, None] * (total - new[:, None] * (centroids - middle))).astype(x.dtype)
    return {"centroids": centroids + change}, count


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    Stage(
        "distances",
        r"\mathrm{distances}_{nm} = \| x_n - \mathrm{centroids}_m \|^2",
        {"distances": "N E"},
    ),
    Stage(
        "logits",
        r"\mathrm{logits} = -\mathrm{distances} / T",
        {"logits": "N E"},
        "T is the temperature.",
    ),
    stages.SOFTMAX,
    stages.largest("logits", "The closest first."),
    Stage("weights", r"\mathrm{weight} = 1", {"weight": "N k"}, when=("weights", "one")),
    Stage("weights", stages.AS_THEY_ARE, {"weight": "N k"}, when=("weights", "softmax")),
    Stage("weights", stages.of_kept("logits"), {"weight": "N k"}, when=("weights", "renormalised")),
)
BACKWARD: tuple[Stage, ...] = (
    Stage(
        "logits",
        r"d\mathrm{logits} = 0",
        stages.DLOGITS,
        "A weight of 1 has no gradient.",
        ("weights", "one"),
    ),
    stages.THROUGH_SOFTMAX._replace(when=("weights", "softmax")),
    stages.through_kept()._replace(when=("weights", "renormalised")),
    Stage(
        "parameters and tokens",
        r"d\mathrm{centroids}_m = \frac2T \sum_n d\mathrm{logits}_{nm} (x_n - "
        r"\mathrm{centroids}_m), \quad dx_n = \frac2T \sum_m d\mathrm{logits}_{nm} "
        r"(\mathrm{centroids}_m - x_n)",
        {"dx": "N D", "dcentroids": "E D"},
        stages.BELOW,
    ),
)
