"""Hash routing, a fixed table sends every token id to one expert: Roller et al. 2021 (arXiv
2106.04426), section 3.

    paper                 here       shape    meaning
    V                     V                   size of the vocabulary
    hash(x_t)             table      (V,)     expert of each token id
    x_t                   ids        (N,)     token ids
    –                     counts     (V,)     how often each id occurs in the training text

Three tables: `init` makes a random one; `balanced` takes the most frequent id first and gives each
to the expert with the least text so far; `clustered` is k-means over embeddings of the ids (of a
model trained before), so that similar words share an expert.

Nothing is learned: the weight is 1, there are no logits and no gradient, to the token or to the
table. The table is part of `params`, to be stored with the model, but not of `grads`: give the
optimiser only what grads names. A token's expert depends on its id alone, so the router is causal;
it sees no context at all.
"""

import heapq
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayA, ArrayN, ArrayND, ArrayNE, Options, Params, Rng
from moe_np.routing import contract, kmeans
from moe_np.routing.contract import Routing, Stage

ArrayV = Annotated[np.ndarray, "V"]

CAUSAL = True
EXAMPLE: Options = {"ids": np.arange(8) % 5, "n_experts": 4}
EXAMPLE_INIT: Options = {"vocabulary": 5}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    ids: ArrayN


def init(rng: Rng, d_model: int, n_experts: int, *, vocabulary: int) -> Params:
    """A random hash: {"table": (V,)}, each id to an expert drawn uniformly. d_model is not used."""
    checks.generator("rng", rng)
    checks.size("d_model", d_model)
    V = checks.size("vocabulary", vocabulary)
    return {"table": rng.integers(checks.size("n_experts", n_experts), size=V)}


def balanced(counts: ArrayV, n_experts: int) -> Params:
    """A balanced hash: ids by falling count (V,), each to the expert with the fewest tokens so far
    -> {"table": (V,)}.

    An id cannot be split, so one very frequent word keeps an expert fuller than the rest. The
    lowest index wins a tie.
    """
    counts = checks.array("counts", counts, ("V",))
    if (counts < 0).any():
        raise InputError(f"counts: wanted numbers of at least 0, got {counts.min()}")
    # a list in rising order is a heap
    E = checks.size("n_experts", n_experts)
    emptiest: list[tuple[Any, int]] = [(0.0, m) for m in range(E)]
    table = np.zeros(len(counts), np.int64)
    for v in np.argsort(-counts, kind="stable"):
        filled, m = emptiest[0]
        table[v] = m
        heapq.heapreplace(emptiest, (filled + counts[v], m))
    return {"table": table}


def clustered(rng: Rng, embeddings: Annotated[np.ndarray, "V, D"], n_experts: int) -> Params:
    """A clustered hash: the k-means cluster of each id's embedding (V, D) -> {"table": (V,)}. Not
    balanced.
    """
    params, _ = kmeans.fit(rng, embeddings, n_experts)
    embeddings = checks.array("embeddings", embeddings, ("V", "D"))
    return {"table": kmeans.distances(embeddings, params["centroids"]).argmin(axis=1)}


def route(
    params: Params,
    x: ArrayND,
    *,
    ids: ArrayN,
    n_experts: int,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Look up each token's expert: ids (N,) -> (Routing with A = N and weight 1, cache). No noise.

    x (N, D) is what the expert will see; the choice does not look at it. Raises InputError for an
    id outside the table.
    """
    x = checks.array("x", x, ("N", "D"))
    ids = checks.array("ids", ids, (len(x),), kind="i")
    checks.mapping("params", params, ("table",))
    table = checks.array("params['table']", params["table"], ("V",), kind="i")
    E = checks.size("n_experts", n_experts)
    if len(table) and (table.min() < 0 or table.max() >= E):
        raise InputError(
            f"params['table']: wanted experts from 0 to {E - 1}, got {table.min()} to {table.max()}"
        )
    if len(ids) and (ids.min() < 0 or ids.max() >= len(table)):
        raise InputError(
            f"ids: wanted 0 to {len(table) - 1}, as the table has, got {ids.min()} to {ids.max()}"
        )
    contract.check_training(training, rng)
    token = np.flatnonzero(contract.check_valid(valid, len(x)))
    expert = table[ids[token]]
    demand = np.zeros((len(x), E), bool)
    demand[token, expert] = True
    weight = np.ones(len(token), x.dtype)
    return Routing(token, expert, weight, None, demand.astype(x.dtype), demand), Cache(x, ids)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> None:
    """None: a hash has no logits. Raises InputError for `dlogits` that is not None."""
    if dlogits is not None:
        raise InputError(
            "dlogits: wanted None, as a hash has no logits that a balance loss could move"
        )


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """No gradient: zeros for x (N, D) and nothing for the table. Raises InputError for `dlogits`
    that is not None.
    """
    logits_backward(dweight, dlogits, cache)
    return np.zeros_like(cache.x), {}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    Stage(
        "lookup",
        r"\mathrm{expert}_n = \mathrm{table}[\mathrm{ids}_n]",
        {"table": "V", "ids": "N", "demand": "N E"},
        "Nothing is computed from x.",
    ),
)
BACKWARD: tuple[Stage, ...] = (
    Stage("parameters and tokens", r"dx = 0", {"dx": "N D"}, "Nothing is learned."),
)
