"""Experts on disk, with a cache of experts per layer in front of them (offloading).

    config, params = checkpoints.load(folder, lazy=True)
    params, caches = offload.attach(params, memory=64_000_000)
    ...                                    # generation as with any parameters
    offload.totals(caches)                 # hits, misses

Published systems do it per layer: of Mixtral's 8 experts, LRU caches of 2 and 4 have hit rates
above those of a uniform choice (Eliseev and Mazur 2023, arXiv 2312.17238). One common LRU cache of
all layers would be worthless: layers take turns, so when a layer comes again, its experts are the
least recently used ones.

The memory is divided into places of one expert, in arrays that are made once. An expert is read
into a buffer, converted and transposed into its place; then no step copies it. Where the tokens of
a step chose more experts than there are places, as in a long prompt, the layer computes group by
group. Outputs equal those of all experts in memory, to the rounding of another order of sums.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayE, Params
from moe_np.models.stored_experts import StoredExperts
from moe_np.serving.cache_policies import POLICIES, Counts, Places
from moe_np.serving.preadv_reader import Reader

Tree = dict[str, Any]  # nested parameters


class CachedExperts:
    """The experts of one layer: some in memory, the others in their files.

    trace   the experts of each request so far, for `cache_policies.simulate`; None: not recorded
    """

    def __init__(
        self,
        stored: StoredExperts,
        places: int,
        *,
        policy: str = "lru",
        reader: Reader | None = None,
        record: bool = False,
    ) -> None:
        self.stored = stored
        n = min(checks.integer("places", places), len(stored))
        self.n_places = n
        self.places = Places(n, POLICIES[checks.choice("policy", policy, tuple(POLICIES))]())
        self.trace: list[tuple[int, ...]] | None = [] if record else None
        self._reader = Reader() if reader is None else reader
        shapes = shapes_of(stored)
        self._params = {leaf: np.zeros((n, *shape), stored.dtype) for leaf, shape in shapes.items()}

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def nbytes(self) -> int:
        """The memory of the places."""
        return sum(array.nbytes for array in self._params.values())

    def groups(self, numbers: ArrayE) -> Iterator[ArrayE]:
        """The experts of a step in groups that fit into the places, those in memory first."""
        numbers = np.unique(numbers)
        if self.trace is not None:
            self.trace.append(tuple(map(int, numbers)))
        most = self.n_places
        if len(numbers) > most:
            absent = [int(number) not in self.places.place_of for number in numbers]
            numbers = numbers[np.argsort(absent, kind="stable")]
        for start in range(0, len(numbers), most):
            yield np.sort(numbers[start : start + most])

    def lend(self, numbers: ArrayE) -> tuple[Params, ArrayE]:
        """The parameters in the places (places, ...), and the places of these experts. They hold
        until the next call.
        """
        arriving = self.places.request(map(int, numbers))
        for i, (number, place) in enumerate(arriving):
            try:
                self._read(number, place)
            except BaseException:
                self.places.forget(expert for expert, _ in arriving[i:])
                raise
        return self._params, np.array([self.places.place_of[int(number)] for number in numbers])

    def read(self, numbers: ArrayE) -> Params:
        """Copies of the parameters of these experts, (len(numbers), ...); at most one per place."""
        loaded, places = self.lend(numbers)
        return {leaf: array[places] for leaf, array in loaded.items()}

    def _read(self, number, place):
        before = None
        array = np.empty(0)
        for leaf, source in sorted(self.stored.sources(number).items(), key=lambda s: s[1][:4]):
            if before is None or source[:4] != before[:4]:  # w1 and w3 may lie in one array
                array = self._reader.read(source.path, source.kind, source.shape, source.start)
            self._params[leaf][place] = source.piece.of(array)
            before = source


def shapes_of(stored: StoredExperts) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the parameters of one expert; nothing is read."""
    return {
        leaf: source.piece.of(np.broadcast_to(np.float32(0), source.shape)).shape
        for leaf, source in stored.sources(0).items()
    }


def expert_bytes(stored: StoredExperts) -> int:
    """The memory of one expert."""
    sizes = [int(np.prod(shape)) for shape in shapes_of(stored).values()]
    return sum(sizes) * stored.dtype.itemsize


def attach(
    params: Tree,
    memory: int,
    *,
    policy: str = "lru",
    record: bool = False,
    cold: bool = False,
) -> tuple[Tree, list[CachedExperts]]:
    """Parameters from `checkpoints.load(lazy=True)` with a cache in front of each layer's experts:
    -> (params, caches). The parameters given are not changed.

    memory   bytes for the weights of routed experts in all layers together. Layers get the same
             number of places; what is left over goes to the first ones, a place each
    cold     read past the system's page cache, for measurements (`preadv_reader`)

    Raises InputError where there is no layer with experts on disk, for less memory than one expert
    per layer, and for cold reads where the system has no posix_fadvise.
    """
    memory = checks.integer("memory", memory)
    layers = list(_stored(params))
    if not layers:
        raise InputError("params: wanted a model with experts on disk, got none with a router")
    size = max(expert_bytes(stored) for stored in layers)
    places, left = divmod(memory // size, len(layers))
    if not places:
        wanted = f"at least {len(layers) * size} bytes, one expert in each of {len(layers)} layers"
        raise InputError(f"memory: wanted {wanted}, got {memory}")
    reader = Reader(cold=cold)
    caches = [
        CachedExperts(stored, places + (i < left), policy=policy, reader=reader, record=record)
        for i, stored in enumerate(layers)
    ]
    replaced: Any = _replaced(params, iter(caches))
    return replaced, caches


def _stored(node) -> Iterator[StoredExperts]:
    """The layers' experts on disk, in the order of the layers."""
    if isinstance(node, StoredExperts):
        yield node
    elif isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _stored(child)


def _replaced(node, caches):
    if isinstance(node, StoredExperts):
        return next(caches)
    if isinstance(node, dict):
        return {name: _replaced(child, caches) for name, child in node.items()}
    return [_replaced(child, caches) for child in node] if isinstance(node, list) else node


class Totals(NamedTuple):
    """What all caches of a model did."""

    counts: Counts
    places: int  # of all layers
    experts: int  # of all layers
    nbytes: int  # of the places


def totals(caches: list[CachedExperts]) -> Totals:
    """Hits, misses and memory of all layers."""
    counts = [cache.places.counts for cache in caches]
    return Totals(
        Counts(sum(c.hits for c in counts), sum(c.misses for c in counts)),
        sum(cache.n_places for cache in caches),
        sum(map(len, caches)),
        sum(cache.nbytes for cache in caches),
    )
