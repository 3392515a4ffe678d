"""The sparse layer with its experts divided among ranks: expert parallelism (Lepikhin et al. 2020,
GShard, arXiv 2006.16668, section 3.2; Rajbhandari et al. 2022, DeepSpeed-MoE, arXiv 2201.05596).

Each rank has its tokens, and some of the experts. A training step of the layer has five exchanges:

    1 counts         how many rows each expert gets from each rank
    2 dispatch       the rows of x go to the ranks of their experts
    3 combine        the experts' outputs go back
    4 dispatch back  the rows of dout, weighted, go to the ranks of the experts
    5 combine back   the gradients of the rows go back

Weights never travel, and the gradients of the experts are complete where the experts are: no sum
over ranks. The router is the same on all ranks; its gradient is summed (`summed_by_pieces`).

The experts run in NumPy: their compiled loops sort the tokens themselves.

    here         shape            meaning
    x            (N, D)           the tokens of this rank; N may be 0 and differ between ranks
    order        (A,)             the assignment at each place after sorting by expert
    arrived      (B, D)           rows that this rank's experts get, by sender
    place        (B,)             arrived[place] is sorted by expert, then sender
    y            (A, D_out)       outputs of the experts for the assignments of this rank

These functions are generators, see `moe_np.parallel`. `moe_np.layers.sparse_layer` is the same in
one process, with the same bits.
"""

from collections.abc import Generator
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, ArrayA, Params
from moe_np.layers import sparse_layer
from moe_np.layers.experts.expert import Expert, Offsets, Outputs, check_params
from moe_np.parallel.exchanges import Bounds, Counts, Exchange, Gather, Send, check_counts, shares
from moe_np.routing import contract
from moe_np.routing.contract import Routing

Asking: TypeAlias = Generator[Exchange, Any, Any]


class Cache(NamedTuple):
    """What the backward pass needs."""

    n_tokens: int
    order: ArrayA
    offsets: Offsets  # of the assignments of this rank, by expert
    token: ArrayA  # sorted, like weight and y
    weight: ArrayA
    y: Outputs
    to_ranks: Counts  # rows that go to each rank
    from_ranks: Counts  # rows that come from each rank
    place: Annotated[np.ndarray, "B"]
    expert: Expert
    experts: Any  # the cache of this rank's experts


def forward(
    params: Params, x: Array, routing: Routing, expert: Expert, rank: int, bounds: Bounds
) -> Generator[Exchange, Any, tuple[Annotated[np.ndarray, "N, D_out"], Cache]]:
    """Dispatch, experts, combine over ranks: x (N, D) -> (out (N, D_out), cache).

    params    of the experts of this rank, bounds[rank] : bounds[rank + 1]
    x         (N, D), the tokens of this rank
    routing   of these tokens to all experts
    bounds    (R + 1,), which experts each rank has

    Raises InputError for a number of experts that differs from the routing's or from `params`, and
    for rows that are not as wide as the experts read.
    """
    _check(params, x, routing, expert, rank, bounds)
    n_experts = int(bounds[-1])
    order, offsets = sparse_layer.by_expert(routing.expert, n_experts)
    token = routing.token[order]
    weight = routing.weight[order]

    count = np.diff(offsets)  # rows for each expert
    to_ranks = np.add.reduceat(np.append(count, 0), bounds[:-1]) * (np.diff(bounds) > 0)
    n_here = int(bounds[rank + 1] - bounds[rank])
    ranks = len(bounds) - 1
    counts = yield Send(count, np.diff(bounds), np.full(ranks, n_here), "counts")
    counts = counts.reshape(ranks, n_here)  # rows from each rank for each expert of this rank
    from_ranks = counts.sum(axis=1)
    check_counts("rows that come", from_ranks)

    arrived = yield Send(x[token], to_ranks, from_ranks, "dispatch")
    its_expert = np.repeat(np.tile(np.arange(n_here), ranks), counts.ravel())
    place = np.argsort(its_expert, kind="stable")  # by expert, then by sender, then its order
    offsets_here = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    with one_blas_thread():  # the same bits for any number of threads
        y_here, experts = expert.forward(params, arrived[place], offsets_here)
    y = yield Send(_back(y_here, place), from_ranks, to_ranks, "combine")

    out = sparse_layer.combine(weight[:, None] * y, token, offsets, len(x))
    return out, Cache(
        len(x), order, offsets, token, weight, y, to_ranks, from_ranks, place, expert, experts
    )


def backward(
    dout: Annotated[np.ndarray, "N, D_out"], cache: Cache
) -> Generator[Exchange, Any, tuple[Array, Params, ArrayA]]:
    """dout (N, D_out) -> (dx (N, D), gradients of this rank's experts, dweight (A,)).

    dweight needs no exchange: the outputs y are at home already.
    """
    dout = checks.array("dout", dout, (cache.n_tokens, cache.y.shape[1]), finite=False)
    arriving = dout.astype(cache.y.dtype, copy=False)[cache.token]
    dweight = np.empty_like(cache.weight)
    dweight[cache.order] = (arriving * cache.y).sum(axis=1)
    weighted = cache.weight[:, None] * arriving
    dy = yield Send(weighted, cache.to_ranks, cache.from_ranks, "dispatch back")
    with one_blas_thread():
        drows_here, grads = cache.expert.backward(dy[cache.place], cache.experts)
    back = _back(drows_here, cache.place)
    drows = yield Send(back, cache.from_ranks, cache.to_ranks, "combine back")
    return sparse_layer.combine(drows, cache.token, cache.offsets, cache.n_tokens), grads, dweight


def _back(rows, place):
    """The rows in the order in which they arrived."""
    arrived = np.empty_like(rows)
    arrived[place] = rows
    return arrived


def summed_by_pieces(parts: list[Params], name: str) -> Generator[Exchange, Any, Params]:
    """The sum over the pieces of all ranks, in the order of the pieces, the same on every rank.

    parts   what each piece of this rank contributes: dicts of equal shapes. Rank 0 has the first
            pieces, rank 1 the next. Every rank has at least one piece

    The order of the additions does not depend on how many ranks share the pieces.
    """
    total: Params = {}
    for key in parts[0]:
        gathered = yield Gather(np.stack([part[key] for part in parts]), f"{name} {key}")
        pieces = [piece for of_rank in gathered for piece in of_rank]
        summed = pieces[0].copy()
        for piece in pieces[1:]:
            summed += piece
        total[key] = summed
    return total


def experts_of_rank(params: Params, rank: int, bounds: Bounds) -> Params:
    """The parameters of the experts of one rank, out of those of all experts."""
    for name, p in params.items():
        if len(p) != bounds[-1]:
            raise InputError(
                f"params[{name!r}]: wanted {bounds[-1]} experts (a shared parameter cannot be "
                f"divided), got {len(p)}"
            )
    return {name: p[bounds[rank] : bounds[rank + 1]].copy() for name, p in params.items()}


def expert_bounds(n_experts: int, ranks: int) -> Bounds:
    """Which experts each rank has. Raises InputError for more ranks than experts."""
    checks.integer("n_experts", n_experts, minimum=1)
    if checks.integer("ranks", ranks, minimum=1) > n_experts:
        raise InputError(f"ranks: wanted at most one per expert, {n_experts}, got {ranks}")
    return shares(n_experts, ranks)


def _check(params, x, routing, expert, rank, bounds):
    contract.check_routing(routing)
    checks.array("x", x, (routing.demand.shape[0], "D"))
    checks.integer("rank", rank, minimum=0, maximum=len(bounds) - 2)
    if bounds[-1] != routing.demand.shape[1]:
        wanted = f"the {routing.demand.shape[1]} experts of the routing"
        raise InputError(f"bounds: wanted {wanted}, got {bounds[-1]}")
    n_here = bounds[rank + 1] - bounds[rank]
    for name, p in params.items():
        if len(p) != n_here:
            wanted = f"the {n_here} experts of rank {rank}"
            raise InputError(f"params[{name!r}]: wanted {wanted}, got {len(p)}")
    _, lengths = check_params(params, n_here, x.dtype, expert.axes)
    features = lengths.get("D", x.shape[1])
    if x.shape[1] != features:
        raise InputError(f"x: wanted {features} features, as the experts read, got {x.shape[1]}")
