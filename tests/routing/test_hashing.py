"""Hash routing: random, balanced and clustered tables."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.routing import hashing
from tests.support.routers import Case

# the id of a token is its place in the batch, round and round
IDS = {"ids": lambda x: np.arange(len(x)) % 7, "n_experts": 4}
CASES = {"hashing": Case(hashing, IDS, {"vocabulary": 7}, learned=False, linear=False)}

X = np.random.default_rng(0).normal(size=(5, 3))


def test_worked_by_hand():
    ids = np.array([3, 0, 3, 1, 2])
    routing, cache = hashing.route({"table": np.array([2, 0, 0, 1])}, X, ids=ids, n_experts=3)
    assert routing.expert.tolist() == [1, 2, 1, 0, 0] and routing.token.tolist() == [0, 1, 2, 3, 4]
    assert (routing.weight == 1).all() and routing.logits is None
    assert (
        np.array_equal(routing.demand, routing.probs == 1)
        and (routing.probs.sum(axis=1) == 1).all()
    )
    dx, grads = hashing.route_backward(np.ones(5), None, cache)
    assert (dx == 0).all() and dx.shape == X.shape and grads == {}


def test_the_token_s_vector_plays_no_part():
    params = hashing.init(np.random.default_rng(0), 3, 4, vocabulary=50)
    ids = np.arange(5)
    a, b = (hashing.route(params, x, ids=ids, n_experts=4)[0] for x in (X, -X))
    assert np.array_equal(a.expert, b.expert)


def test_random_is_uniform_and_repeats_with_its_seed():
    table = hashing.init(np.random.default_rng(1), 3, 8, vocabulary=80_000)["table"]
    assert np.array_equal(
        table, hashing.init(np.random.default_rng(1), 3, 8, vocabulary=80_000)["table"]
    )
    count = np.bincount(table, minlength=8)
    assert ((count - 10_000) ** 2 / 10_000).sum() < 24.3  # chi² with 7 degrees of freedom, p = .001


def test_balanced_worked_by_hand():
    # by falling count: id 1 (8) to expert 0, id 3 (5) to 1, id 0 (4) to 1 (5 < 8), id 4 (2) to 0 (8
    # < 9), id 2 (1) to 1
    assert hashing.balanced([4, 8, 1, 5, 2], 2)["table"].tolist() == [1, 0, 1, 1, 0]


def test_balanced_is_balanced_on_zipf_counts_and_random_is_not():
    counts = 1e6 / np.arange(1, 5001)
    table = hashing.balanced(counts, 4)["table"]
    load = np.bincount(table, counts)
    assert load.max() / load.mean() < 1.001
    random = np.bincount(
        hashing.init(np.random.default_rng(0), 1, 4, vocabulary=5000)["table"], counts
    )
    assert random.max() / random.mean() > 1.1
    # one word that is more than an expert's share fills one expert alone
    load = np.bincount(hashing.balanced([90, 4, 3, 3], 2)["table"], [90, 4, 3, 3])
    assert sorted(load) == [10, 90]


def test_balanced_equals_a_naive_loop():
    for seed in range(10):
        counts = np.random.default_rng(seed).integers(0, 50, 30)
        load = [0] * 4
        table = {}
        for v in sorted(range(30), key=lambda v: -counts[v]):
            m = load.index(min(load))
            table[v] = m
            load[m] += counts[v]
        assert hashing.balanced(counts, 4)["table"].tolist() == [table[v] for v in range(30)]


def test_clustered_puts_similar_words_together():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 60)
    embeddings = 5 * np.eye(3)[kind] + 0.2 * rng.normal(size=(60, 3))
    table = hashing.clustered(rng, embeddings, 3)["table"]
    pairs = set(zip(kind.tolist(), table.tolist(), strict=True))
    assert len(pairs) == 3 and table.shape == (60,)


@pytest.mark.parametrize(
    ("params", "ids", "words"),
    [
        ([0, 1], [0, 1, 2, 0, 0], "ids: wanted 0 to 1, as the table has, got 0 to 2"),
        ([0, 1], [0, -1, 1, 0, 0], "ids: wanted 0 to 1, as the table has, got -1 to 1"),
        (
            [0, 1],
            [0, 1],
            r"ids: wanted shape \(5\), got \(2,\)|ids: wanted shape \(5,\), got \(2,\)",
        ),
        ([0, 1], [0.0, 1.0, 1, 1, 1], "ids: wanted integer numbers, got an array of dtype float64"),
        ([0, 3], [0] * 5, r"params\['table'\]: wanted experts from 0 to 2, got 0 to 3"),
        ([0.0, 1.0], [0] * 5, r"params\['table'\]: wanted integer numbers"),
    ],
)
def test_bad_input(params, ids, words):
    with pytest.raises(InputError, match=words):
        hashing.route({"table": np.array(params)}, X, ids=np.array(ids), n_experts=3)


def test_a_balance_loss_is_refused_and_counts_are_checked():
    _, cache = hashing.route({"table": np.array([0])}, X, ids=np.zeros(5, int), n_experts=1)
    with pytest.raises(InputError, match="dlogits: wanted None"):
        hashing.route_backward(np.ones(5), np.zeros((5, 1)), cache)
    with pytest.raises(InputError, match="counts: wanted numbers of at least 0, got -1"):
        hashing.balanced([1.0, -1.0], 2)
    with pytest.raises(InputError, match=r"x: wanted finite numbers"):
        hashing.route(
            {"table": np.array([0])}, np.full((1, 2), np.nan), ids=np.zeros(1, int), n_experts=1
        )
