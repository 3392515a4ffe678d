"""LRU, LFU and Belady: by hand, and the bound against every possible choice."""

import functools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.serving.cache_policies import Counts, LeastFrequent, LeastRecent, Places, simulate


def test_the_least_recent_leaves():
    cache = Places(2, LeastRecent())
    assert cache.request([0]) == [(0, 0)]
    assert cache.request([1]) == [(1, 1)]
    assert cache.request([0]) == []
    assert cache.request([2]) == [(2, 1)]
    assert cache.place_of == {0: 0, 2: 1}
    assert cache.counts == Counts(1, 3)


def test_the_least_frequent_leaves():
    cache = Places(2, LeastFrequent())
    for expert in (0, 0, 1):
        cache.request([expert])
    assert cache.request([2]) == [(2, 1)]
    assert cache.request([1]) == [(1, 1)], "1 has more uses than 2 from before it left"
    assert cache.counts == Counts(1, 4)


def test_what_a_step_needs_does_not_leave():
    cache = Places(2, LeastRecent())
    cache.request([0, 1])
    assert cache.request([0, 2]) == [(2, 1)]
    assert set(cache.place_of) == {0, 2}


def test_places_of_experts_that_were_not_read_are_free():
    cache = Places(2, LeastRecent())
    cache.request([0, 1])
    cache.forget([1])
    assert cache.request([5]) == [(5, 1)]
    assert set(cache.place_of) == {0, 5}


def test_by_hand():
    trace = [[0], [1], [2], [0], [1], [2]]
    assert simulate(trace, 2, "lru") == Counts(0, 6)
    assert simulate(trace, 2, "belady") == Counts(2, 4)
    assert simulate(trace, 3, "lru") == Counts(3, 3)
    assert Counts(1, 3).hit_rate == 0.25 and Counts(0, 0).hit_rate == 0


@pytest.mark.parametrize("seed", range(15))
def test_nothing_is_better_than_belady(seed):
    """All ways to choose who leaves, on short traces."""
    rng = np.random.default_rng(seed)
    k = 1 + seed % 2
    trace = [tuple(sorted(rng.permutation(5)[:k].tolist())) for _ in range(10)]

    @functools.cache
    def most_hits(step, inside):
        if step == len(trace):
            return 0
        needed = frozenset(trace[step])
        hits = len(needed & inside)
        after = {inside | needed}
        while len(next(iter(after))) > 3:
            after = {cache - {e} for cache in after for e in cache - needed}
        return hits + max(most_hits(step + 1, cache) for cache in after)

    best = most_hits(0, frozenset())
    assert simulate(trace, 3, "belady").hits == best
    assert simulate(trace, 3, "lru").hits <= best
    assert simulate(trace, 3, "lfu").hits <= best


def test_uniform_choices_hit_by_the_share_of_the_places():
    """k = 1: the next expert is in the cache with probability C/E, under every rule."""
    rng = np.random.default_rng(0)
    trace = rng.integers(0, 8, (20_000, 1))
    for policy in ("lru", "lfu"):
        assert simulate(trace, 4, policy).hit_rate == pytest.approx(0.5, abs=0.015)
    assert simulate(trace, 4, "belady").hit_rate > 0.6


def test_refusals():
    with pytest.raises(InputError, match="places: wanted at least 2, the experts of a step, got 1"):
        simulate([[0], [1, 3]], 1, "lru")
    with pytest.raises(InputError, match="policy: wanted one of lru, lfu, belady; got 'fifo'"):
        simulate([[0]], 1, "fifo")
