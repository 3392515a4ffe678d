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
    slot         (A,)             the expert's place on a rank (`moe_np.parallel.placement`)
    order        (A,)             the assignment at each place after sorting by slot
    to_send      (A,)             the sorted assignments, rank by rank
    arrived      (B, D)           rows that this rank's slots get, by sender
    place        (B,)             arrived[place] is sorted by slot, then sender
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
from moe_np.parallel.exchanges import Counts, Exchange, Gather, Send, check_counts
from moe_np.parallel.placement import Placement, slot_of
from moe_np.routing import contract
from moe_np.routing.contract import Routing

Asking: TypeAlias = Generator[Exchange, Any, Any]


class Cache(NamedTuple):
    """What the backward pass needs."""

    n_tokens: int
    order: ArrayA
    offsets: Offsets  # of the assignments of this rank, by slot
    token: ArrayA  # sorted, like weight and y
    weight: ArrayA
    y: Outputs
    to_send: ArrayA  # the sorted assignments in the order of the ranks
    to_ranks: Counts  # rows that go to each rank
    from_ranks: Counts  # rows that come from each rank
    place: Annotated[np.ndarray, "B"]
    expert: Expert
    experts: Any  # the cache of this rank's experts


def forward(
    params: Params,
    x: Array,
    routing: Routing,
    expert: Expert,
    rank: int,
    placement: Placement,
    *,
    first_token: int = 0,
) -> Generator[Exchange, Any, tuple[Annotated[np.ndarray, "N, D_out"], Cache]]:
    """Dispatch, experts, combine over ranks: x (N, D) -> (out (N, D_out), cache).

    params        of the slots of this rank, in their order (`placement.params_of_rank`)
    x             (N, D), the tokens of this rank
    routing       of these tokens to all experts
    placement     which rank has which experts
    first_token   the number in the whole batch of this rank's first token, where an expert has
                  several replicas: it decides which of them a token takes

    Raises InputError for a number of experts that differs from the routing's or from `params`, and
    for rows that are not as wide as the experts read.
    """
    _check(params, x, routing, expert, rank, placement)
    slot = slot_of(routing.expert, routing.token + first_token, placement)
    order, offsets = sparse_layer.by_expert(slot, len(placement.expert))
    token = routing.token[order]
    weight = routing.weight[order]

    n_slots = np.bincount(placement.rank, minlength=placement.ranks)  # per rank
    count = np.diff(offsets)[placement.by_rank]  # rows for each slot
    to_ranks = np.bincount(placement.rank[placement.by_rank], count, placement.ranks).astype(int)
    to_send = np.argsort(placement.rank[slot[order]], kind="stable")  # by rank, then slot
    n_here = len(placement.of_rank(rank))
    counts = yield Send(count, n_slots, np.full(placement.ranks, n_here), "counts")
    counts = counts.reshape(placement.ranks, n_here)  # rows from each rank for each slot here
    from_ranks = counts.sum(axis=1)
    check_counts("rows that come", from_ranks)

    arrived = yield Send(x[token[to_send]], to_ranks, from_ranks, "dispatch")
    its_slot = np.repeat(np.tile(np.arange(n_here), placement.ranks), counts.ravel())
    place = np.argsort(its_slot, kind="stable")  # by slot, then by sender, then its order
    offsets_here = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    with one_blas_thread():  # the same bits for any number of threads
        y_here, experts = expert.forward(params, arrived[place], offsets_here)
    returned = yield Send(_put(y_here, place), from_ranks, to_ranks, "combine")
    y = _put(returned, to_send)

    out = sparse_layer.combine(weight[:, None] * y, token, offsets, len(x))
    return out, Cache(
        *(len(x), order, offsets, token, weight, y, to_send, to_ranks, from_ranks, place),
        *(expert, experts),
    )


def backward(
    dout: Annotated[np.ndarray, "N, D_out"], cache: Cache
) -> Generator[Exchange, Any, tuple[Array, Params, ArrayA]]:
    """dout (N, D_out) -> dx (N, D), the gradients of this rank's slots, dweight (A,).

    The gradients of replicas are those of their own rows (`placement.summed_replicas` adds them
    up). dweight needs no exchange: the outputs y are at home already.
    """
    dout = checks.array("dout", dout, (cache.n_tokens, cache.y.shape[1]), finite=False)
    arriving = dout.astype(cache.y.dtype, copy=False)[cache.token]
    dweight = np.empty_like(cache.weight)
    dweight[cache.order] = (arriving * cache.y).sum(axis=1)
    weighted = (cache.weight[:, None] * arriving)[cache.to_send]
    dy = yield Send(weighted, cache.to_ranks, cache.from_ranks, "dispatch back")
    with one_blas_thread():
        drows_here, grads = cache.expert.backward(dy[cache.place], cache.experts)
    back = _put(drows_here, cache.place)
    returned = yield Send(back, cache.from_ranks, cache.to_ranks, "combine back")
    drows = _put(returned, cache.to_send)
    return sparse_layer.combine(drows, cache.token, cache.offsets, cache.n_tokens), grads, dweight


def _put(rows, places):
    """The rows at their places: the inverse of rows[places]."""
    out = np.empty_like(rows)
    out[places] = rows
    return out


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


def _check(params, x, routing, expert, rank, placement):
    contract.check_routing(routing)
    checks.array("x", x, (routing.demand.shape[0], "D"))
    checks.integer("rank", rank, minimum=0, maximum=placement.ranks - 1)
    if placement.n_experts != routing.demand.shape[1]:
        wanted = f"the {routing.demand.shape[1]} experts of the routing"
        raise InputError(f"placement: wanted {wanted}, got {placement.n_experts}")
    n_here = len(placement.of_rank(rank))
    for name, p in params.items():
        if len(p) != n_here:
            wanted = f"the {n_here} experts of rank {rank}"
            raise InputError(f"params[{name!r}]: wanted {wanted}, got {len(p)}")
    _, lengths = check_params(params, n_here, x.dtype, expert.axes)
    features = lengths.get("D", x.shape[1])
    if x.shape[1] != features:
        raise InputError(f"x: wanted {features} features, as the experts read, got {x.shape[1]}")
