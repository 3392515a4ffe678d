"""Which expert leaves a full cache: LRU, LFU, and Belady's bound.

    LRU      the least recently used one
    LFU      the least frequently used one since the beginning; of equal ones the least recent
    Belady   the one whose next use is farthest in the future (Belady 1966, IBM Systems Journal 5,
             algorithm MIN). It needs the trace of all requests, so it is a bound and no policy

A request is the set of the experts that the tokens of one step chose in a layer: all of them must
be in the cache at the same time. What a request has found in the cache is a hit, the rest are
misses. No rule has fewer misses on a trace than Belady's.
"""

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from moe_np.base import checks
from moe_np.base.checks import InputError

Trace = Sequence[Iterable[int]]  # per step, the experts that it needs


class Policy(Protocol):
    """What a cache asks."""

    def use(self, expert: int) -> None:
        """Note that a step needs this expert."""

    def victim(self, candidates: Iterable[int]) -> int:
        """The expert that leaves, of those in the cache that the step does not need."""
        ...


class LeastRecent:
    """LRU: the expert that was used longest ago."""

    def __init__(self) -> None:
        self._time = 0
        self._last: dict[int, int] = {}

    def use(self, expert: int) -> None:
        """Note a use."""
        self._time += 1
        self._last[expert] = self._time

    def victim(self, candidates: Iterable[int]) -> int:
        """The candidate whose last use is the earliest."""
        return min(candidates, key=self._last.__getitem__)


class LeastFrequent:
    """LFU: the expert with the fewest uses since the beginning."""

    def __init__(self) -> None:
        self._time = 0
        self._uses: dict[int, tuple[int, int]] = {}  # number of uses, time of the last

    def use(self, expert: int) -> None:
        """Note a use."""
        self._time += 1
        self._uses[expert] = (self._uses.get(expert, (0, 0))[0] + 1, self._time)

    def victim(self, candidates: Iterable[int]) -> int:
        """The candidate with the fewest uses."""
        return min(candidates, key=self._uses.__getitem__)


class Belady:
    """The bound: it knows the trace, whose steps are used in their order, each expert once."""

    def __init__(self, trace: Trace) -> None:
        self._uses: dict[int, list[int]] = {}
        for step, experts in enumerate(trace):
            for expert in set(experts):
                self._uses.setdefault(expert, []).append(step)
        self._next = {expert: uses[0] for expert, uses in self._uses.items()}

    def use(self, expert: int) -> None:
        """Go on to the next use of the expert."""
        uses = self._uses[expert]
        place = bisect.bisect_right(uses, self._next[expert])
        self._next[expert] = uses[place] if place < len(uses) else 1 << 60

    def victim(self, candidates: Iterable[int]) -> int:
        """The candidate whose next use is the latest."""
        return max(candidates, key=self._next.__getitem__)


POLICIES = {"lru": LeastRecent, "lfu": LeastFrequent}


class Counts(NamedTuple):
    """How often an expert was asked for."""

    hits: int
    misses: int

    @property
    def hit_rate(self) -> float:
        """hits / (hits + misses); 0 without a request."""
        return self.hits / max(self.hits + self.misses, 1)


class Places:
    """The places of a cache: which expert lies where, and who leaves."""

    def __init__(self, n: int, policy: Policy) -> None:
        self.place_of: dict[int, int] = {}  # expert -> place
        self.hits = 0
        self.misses = 0
        self._free = list(range(n))[::-1]
        self._policy = policy

    @property
    def counts(self) -> Counts:
        """Hits and misses since the beginning."""
        return Counts(self.hits, self.misses)

    def request(self, experts: Iterable[int]) -> list[tuple[int, int]]:
        """Make room for the experts of a step, at most as many as there are places: -> those that
        were not there, each with the place into which it has to be read.
        """
        needed = sorted(set(experts))
        absent = [expert for expert in needed if expert not in self.place_of]
        self.hits += len(needed) - len(absent)
        self.misses += len(absent)
        for expert in needed:
            self._policy.use(expert)
        arriving = []
        for expert in absent:
            if not self._free:
                wanted = set(needed)
                victim = self._policy.victim(e for e in self.place_of if e not in wanted)
                self._free.append(self.place_of.pop(victim))
            self.place_of[expert] = self._free.pop()
            arriving.append((expert, self.place_of[expert]))
        return arriving

    def forget(self, experts: Iterable[int]) -> None:
        """Free the places of experts that could not be read."""
        self._free += [self.place_of.pop(expert) for expert in experts]


def simulate(trace: Trace, places: int, policy: str) -> Counts:
    """Hits and misses of a cache with so many places on a trace; policy: lru, lfu or belady.

    Raises InputError for a step that needs more experts than there are places.
    """
    places = checks.integer("places", places)
    name = checks.choice("policy", policy, (*POLICIES, "belady"))
    steps = [tuple(map(int, experts)) for experts in trace]
    most = max((len(set(experts)) for experts in steps), default=0)
    if most > places:
        raise InputError(f"places: wanted at least {most}, the experts of a step, got {places}")
    cache = Places(places, Belady(steps) if name == "belady" else POLICIES[name]())
    for experts in steps:
        cache.request(experts)
    return cache.counts
