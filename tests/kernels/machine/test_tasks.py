"""The counting sort, against NumPy and a naive loop, and the cut of the work into tasks."""

import numpy as np
import pytest

from moe_np.layers import sparse_layer
from tests.support.kernels import numba
from tests.support.layers import random_routing

if numba:
    from moe_np.kernels.machine import tasks


@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "k"), [(0, 3, 1), (1, 1, 1), (9, 4, 2), (20, 6, 6), (5, 40, 3)]
)
def test_sort(n_tokens, n_experts, k):
    rng = np.random.default_rng(n_tokens)
    routing = random_routing(rng, n_tokens, n_experts, k, drop=0.2)
    s = tasks.sort(routing.token, routing.expert, routing.weight, n_tokens, n_experts)
    order, offsets = sparse_layer.by_expert(routing.expert, n_experts)
    assert np.array_equal(s.order, order) and np.array_equal(s.offsets, offsets)
    assignments = range(len(routing.token))
    naive = [a for m in range(n_experts) for a in assignments if routing.expert[a] == m]
    assert s.order.tolist() == naive
    assert np.array_equal(s.token, routing.token[order])
    assert np.array_equal(s.weight, routing.weight[order])
    for n in range(n_tokens):
        places = s.places[s.start[n] : s.start[n + 1]]
        assert places.tolist() == np.flatnonzero(s.token == n).tolist()


def test_sort_sees_bad_assignments():
    token, expert = np.array([0, 1, 2, 1, 0]), np.array([3, 2, 3, 0, 1])
    weight = np.ones(5)
    place = np.arange(5)
    assert tasks.sort(token, expert, weight, 3, 4) is not None
    # token 1 has expert 2 twice
    assert tasks.sort(token, np.array([3, 2, 3, 2, 1]), weight, 3, 4) is None
    assert tasks.sort(token[:3], np.array([3, 2, 3]), np.ones(3), 3, 4) is not None
    for i, bad in ((0, -1), (4, 3), (2, 1 << 40)):
        assert tasks.sort(np.where(place == i, bad, token), expert, weight, 3, 4) is None
        bad_expert = np.where(place == i, bad + (bad > 0), expert)
        assert tasks.sort(token, bad_expert, weight, 3, 4) is None
    for bad in (np.nan, np.inf, -np.inf):
        assert tasks.sort(token, expert, np.where(place == 3, bad, 1.0), 3, 4) is None


HOT = [[100, 3000, 0, 900], [600, 600], [520, 521, 522], [2047], [700, 0, 513]]


@pytest.mark.parametrize(
    "count",
    [[0], [5], [0, 0, 3], [10] * 50, [4000], *HOT],
    ids=str,
)
def test_plan_covers_every_row_once(count):
    offsets = np.concatenate([[0], np.cumsum(count)])
    p = tasks.plan(offsets)
    assert p.longest == (p.tasks[:, 2] - p.tasks[:, 1]).max()
    assert (np.diff(p.tasks[:, 2] - p.tasks[:, 1]) <= 0).all()  # the longest first
    expert, lo, hi, place = p.tasks[np.argsort(p.tasks[:, 1], kind="stable")].T
    for m, n in enumerate(count):
        of_expert = expert == m
        assert lo[of_expert][0] == offsets[m] and hi[of_expert][-1] == offsets[m + 1]
        assert (lo[of_expert][1:] == hi[of_expert][:-1]).all()
        assert of_expert.sum() == 1 or n > max(512, sum(count) / 4)
    assert sorted(place.tolist()) == list(range(len(place)))
    assert np.array_equal(p.extra, expert[place >= len(count)])
