"""Placement: which rank has which expert, and how often. Any placement gives the same bits.

    contiguous   rank 0 has the first experts, rank 1 the next: without a load nothing is better
    packed       the heaviest expert first, each to the rank with the least load that has room
    replicated   hot experts several times, then packed: the idea of the expert parallelism load
                 balancer (EPLB) of DeepSeek-V3 (arXiv 2412.19437, section 3.4)

A slot is a place for the parameters of one expert. An expert has one slot, or several replicas; the
slots are numbered expert by expert, whatever their ranks. A token goes to the replica with the
number (its own number in the batch) mod (replicas of the expert), so that no rank has to know what
the others send.

    here      shape     meaning
    load      (E,)      rows per expert, as counted in earlier batches
    expert    (S,)      the expert of each slot, rising; S = E without replicas
    rank      (S,)      the rank of each slot

**Bits.** A layer with these slots has the same bits on any ranks, and in one process whose experts
are the slots. With replicas it is another sum than without: the rows of an expert are multiplied in
parts, and `summed_replicas` adds their gradients in the order of the slots.
"""

import heapq
from collections.abc import Generator
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayA, ArrayE, Params
from moe_np.parallel.exchanges import Bounds, Exchange, Gather, shares

Slots = Annotated[np.ndarray, "S"]


class Placement(NamedTuple):
    """Where the slots are."""

    expert: Slots
    rank: Slots
    ranks: int

    @property
    def n_experts(self) -> int:
        """The number of experts, E."""
        return int(self.expert[-1]) + 1

    @property
    def by_rank(self) -> Slots:
        """The slots in the order of their ranks."""
        return np.argsort(self.rank, kind="stable")

    @property
    def bounds(self) -> Bounds:
        """Rank r has by_rank[bounds[r] : bounds[r + 1]]."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.rank, minlength=self.ranks))])

    def of_rank(self, rank: int) -> Slots:
        """The slots of one rank, rising."""
        return np.flatnonzero(self.rank == rank)


# --- three ways to place --------------------------------------------------------------------------


def contiguous(n_experts: int, ranks: int) -> Placement:
    """Contiguous shares of the experts. Raises InputError for more ranks than experts."""
    _check_ranks(checks.integer("n_experts", n_experts, minimum=1), ranks)
    rank = np.repeat(np.arange(ranks), np.diff(shares(n_experts, ranks)))
    return Placement(np.arange(n_experts), rank, ranks)


def packed(load: ArrayE, ranks: int) -> Placement:
    """One slot per expert, the numbers of slots per rank as equal as they can be: greedy packing.

    Raises InputError for more ranks than experts.
    """
    load = _check_load(load)
    _check_ranks(len(load), ranks)
    return Placement(np.arange(len(load)), _pack(load, ranks), ranks)


def replicated(load: ArrayE, ranks: int, slots: int) -> Placement:
    """`slots` slots: one per expert, then one replica at a time for the expert whose replicas have
    the largest load each, at most one per rank; then packed by the load of a replica.

    Raises InputError for fewer slots than experts or ranks, and for more than E·R.
    """
    load = _check_load(load)
    checks.integer("ranks", ranks, minimum=1)
    least = max(len(load), ranks)
    slots = checks.integer("slots", slots, minimum=least, maximum=len(load) * ranks)
    count = np.ones(len(load), np.int64)
    for _ in range(slots - len(load)):
        per_replica = np.where(count < ranks, load / count, -1)
        count[per_replica.argmax()] += 1
    expert = np.repeat(np.arange(len(load)), count)
    return Placement(expert, _pack((load / count)[expert], ranks), ranks)


def _pack(load, ranks):
    """The rank of each slot: the heaviest first, to the rank with the least load that has room."""
    room = np.diff(shares(len(load), ranks))
    heap = [(0.0, rank) for rank in range(ranks)]
    of_slot = np.empty(len(load), np.int64)
    for slot in np.argsort(-load, kind="stable"):
        total, rank = heapq.heappop(heap)
        of_slot[slot] = rank
        room[rank] -= 1
        if room[rank] > 0:
            heapq.heappush(heap, (total + load[slot], rank))
    return of_slot


def load_of_ranks(load: ArrayE, placement: Placement) -> Annotated[np.ndarray, "R"]:
    """The rows of each rank, where an expert's replicas share its load (E,)."""
    load = _check_load(load)
    count = np.bincount(placement.expert)
    return np.bincount(placement.rank, (load / count)[placement.expert], placement.ranks)


# --- tokens and parameters of slots ---------------------------------------------------------------


def slot_of(expert: ArrayA, token: ArrayA, placement: Placement) -> ArrayA:
    """The slot of each assignment: expert (A,), token (A,) with its number in the batch -> (A,)."""
    count = np.bincount(placement.expert)
    first = np.cumsum(count) - count
    return first[expert] + token % count[expert]


def params_of_rank(params: Params, rank: int, placement: Placement) -> Params:
    """The parameters of the slots of one rank, out of those of all experts.

    Raises InputError for another number of experts, and for a shared parameter.
    """
    for name, p in params.items():
        if len(p) != placement.n_experts:
            raise InputError(
                f"params[{name!r}]: wanted {placement.n_experts} experts (a shared parameter "
                f"cannot be divided), got {len(p)}"
            )
    experts = placement.expert[placement.of_rank(rank)]
    return {name: p[experts] for name, p in params.items()}


def summed_replicas(
    grads: Params, rank: int, placement: Placement, name: str = "replicas"
) -> Generator[Exchange, Any, Params]:
    """The gradients of this rank's slots, with those of an expert's replicas added up in the order
    of the slots: all replicas get the same sum, and stay equal.
    """
    count = np.bincount(placement.expert)
    if count.max() == 1:
        return grads
    hot = np.flatnonzero(count > 1)
    here = placement.of_rank(rank)
    sent = np.flatnonzero(count[placement.expert[here]] > 1)
    order = placement.by_rank
    order = order[count[placement.expert[order]] > 1]  # the slots, as they come from the ranks
    summed = {}
    for key, g in grads.items():
        gathered = yield Gather(np.ascontiguousarray(g[sent]), f"{name} {key}")
        of_slot = dict(zip(order.tolist(), np.concatenate(gathered), strict=True))
        totals = {
            int(expert): _sum(of_slot, np.flatnonzero(placement.expert == expert)) for expert in hot
        }
        summed[key] = g.copy()
        for place in sent:
            summed[key][place] = totals[int(placement.expert[here[place]])]
    return summed


def _sum(of_slot, slots):
    total = of_slot[slots[0]].copy()
    for slot in slots[1:]:
        total += of_slot[slot]
    return total


def of_experts(
    grads: Params, rank: int, placement: Placement, name: str = "experts"
) -> Generator[Exchange, Any, Params]:
    """Arrays of all experts, out of those of the slots of each rank: the first replica of each."""
    whole = {}
    order = placement.by_rank
    first = np.searchsorted(placement.expert, np.arange(placement.n_experts))
    for key, g in grads.items():
        gathered = yield Gather(np.ascontiguousarray(g), f"{name} {key}")
        of_slot = np.empty((len(order), *g.shape[1:]), g.dtype)
        of_slot[order] = np.concatenate(gathered)
        whole[key] = of_slot[first]
    return whole


def _check_ranks(n_experts, ranks):
    if checks.integer("ranks", ranks, minimum=1) > n_experts:
        raise InputError(f"ranks: wanted at most one per expert, {n_experts}, got {ranks}")


def _check_load(load):
    load = checks.array("load", load, ("E",))
    if len(load) == 0 or load.min() < 0:
        raise InputError(f"load: wanted numbers of at least 0, one per expert, got {load}")
    return load
