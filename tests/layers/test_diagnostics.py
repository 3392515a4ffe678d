"""Diagnostics against values worked out by hand."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import diagnostics
from moe_np.layers.diagnostics import (
    cv,
    demand,
    dispatch_entropy,
    dropped_share,
    importance,
    load,
    max_over_mean,
    mutual_information,
    table,
    unserved_share,
)
from moe_np.routing import top_k
from moe_np.routing.contract import Routing


def routing():
    """Four tokens, three experts. Asked for: 0→{0,1}, 1→{0,1}, 2→{0,2}, 3→{0,2}. Expert 0 takes
    two, so tokens 2 and 3 lose it; token 3 loses expert 2 as well.
    """
    token, expert = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 2])
    weight = np.array([0.75, 0.25, 0.5, 0.5, 0.25])
    demand = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1]], bool)
    probs = np.full((4, 3), 1 / 3)
    return Routing(token, expert, weight, np.zeros((4, 3)), probs, demand)


def test_counts():
    r = routing()
    assert load(r).tolist() == [2, 2, 1]
    assert demand(r).tolist() == [4, 2, 2]
    assert importance(r).tolist() == [1.25, 0.75, 0.25]
    assert dropped_share(r) == 3 / 8
    assert unserved_share(r) == 1 / 4


def test_padding_is_left_out_of_every_count():
    r, valid = routing(), np.array([True, False, False, True])
    assert load(r, valid=valid).tolist() == [1, 1, 0]
    assert demand(r, valid=valid).tolist() == [2, 1, 1]
    assert importance(r, valid=valid).tolist() == [0.75, 0.25, 0]
    assert dropped_share(r, valid=valid) == 1 / 2
    assert unserved_share(r, valid=valid) == 1 / 2


def test_spread():
    assert cv([3, 1]) == 0.5  # population: ddof = 1 would give .707
    assert max_over_mean([3, 1]) == 1.5
    assert cv([5, 5, 5]) == 0 and max_over_mean([5, 5, 5]) == 1
    assert cv([0, 8, 0, 0]) == pytest.approx(3**0.5) and max_over_mean([0, 8, 0, 0]) == 4
    assert cv([0, 0]) == 0 and max_over_mean([0, 0]) == 1, "no assignment"


def test_no_tokens():
    no_rows, no_tokens = np.zeros(0, int), np.zeros((0, 3))
    r = Routing(no_rows, no_rows, np.zeros(0), no_tokens, no_tokens, no_tokens.astype(bool))
    assert load(r).tolist() == demand(r).tolist() == [0, 0, 0]
    assert dropped_share(r) == unserved_share(r) == 0
    assert dispatch_entropy(no_rows, no_rows) == 0
    information = mutual_information(no_rows, no_rows, np.random.default_rng(0))
    assert information == (0, 0, 0, 0)


def test_table():
    assert table([0, 0, 2], [1, 1, 0]).tolist() == [[0, 2], [0, 0], [1, 0]]
    r = routing()
    assert table(r.expert, [0, 1, 0, 1], token=r.token).tolist() == [[1, 1], [1, 1], [1, 0]]
    assert table([0, 1], [0, 0], shape=(3, 2)).tolist() == [[1, 0], [1, 0], [0, 0]]


def test_a_table_of_one_label_or_none():
    assert table([1, 0], [0], token=[0, 0]).tolist() == [[1], [1]]
    none = np.zeros(0, int)
    assert table(none, [0], token=none).shape == (0, 0)
    assert table(none, none, token=none).shape == (0, 0)


def test_dispatch_entropy():
    assert dispatch_entropy([0, 0, 1, 1], [0, 0, 1, 1]) == 0
    assert dispatch_entropy([0, 1, 0, 1], [0, 0, 1, 1]) == pytest.approx(np.log(2))
    # expert 0 has three of four tokens, two of one cluster and one of another; expert 1 has one
    by_hand = 3 / 4 * (2 / 3 * np.log(3 / 2) + 1 / 3 * np.log(3))
    assert dispatch_entropy([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx(by_hand)


def test_dispatch_entropy_at_its_ends():
    cluster = np.arange(4).repeat(50)
    assert dispatch_entropy(cluster, cluster, shape=(8, 4)) == 0
    everything = dispatch_entropy(np.zeros(200, int), cluster, shape=(8, 4))
    assert everything == pytest.approx(np.log(4))
    assert dispatch_entropy(cluster // 2, cluster, shape=(8, 4)) == pytest.approx(np.log(2))


def test_dispatch_entropy_against_a_naive_loop_and_experts_without_tokens():
    rng = np.random.default_rng(0)
    expert, cluster = rng.integers(0, 6, 500), rng.integers(0, 4, 500)
    naive = 0.0
    for m in range(6):
        shares = [np.mean(cluster[expert == m] == c) for c in range(4)]
        naive -= np.mean(expert == m) * sum(p * np.log(p) for p in shares)
    assert dispatch_entropy(expert, cluster) == pytest.approx(naive, rel=1e-12)
    assert dispatch_entropy(expert, cluster, shape=(9, 5)) == pytest.approx(naive, rel=1e-12)


def test_mutual_information():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(4), 50)
    same = mutual_information(label, label, rng)
    assert same.bits == pytest.approx(2) == same.expert_bits == same.label_bits
    coarse = mutual_information(label // 2, label, rng)  # two experts know the label's first bit
    assert coarse.bits == pytest.approx(1) and coarse.expert_bits == pytest.approx(1)
    # joint ((1/2, 1/4), (0, 1/4)): I = H(3/4) + 1 − 1.5 bits
    skewed = mutual_information([0, 0, 0, 1], [0, 0, 1, 1], rng)
    assert skewed.bits == pytest.approx(0.75 * np.log2(4 / 3) + 0.25 * 2 + 1 - 1.5)


def test_the_permuted_baseline_is_what_chance_gives():
    rng = np.random.default_rng(1)
    expert, label = rng.integers(0, 8, 400), rng.integers(0, 10, 400)
    information = mutual_information(expert, label, rng, permutations=40)
    assert information.bits > 0.08, "unrelated, and yet it looks like information"
    assert information.permuted == pytest.approx(7 * 9 / (2 * 400 * np.log(2)), rel=0.1)
    assert information.bits == pytest.approx(information.permuted, rel=0.3)
    first, second = (
        mutual_information(expert, label, np.random.default_rng(5), permutations=3)
        for _ in range(2)
    )
    assert first == second


def test_with_several_experts_per_token_the_tokens_are_shuffled_and_not_the_assignments():
    """Both choices of a token are the same function of its label; so is each baseline round of the
    shuffled one.
    """
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 300)
    token = np.repeat(np.arange(300), 2)
    expert = 2 * label[token] + np.tile([0, 1], 300)
    information = mutual_information(expert, label, rng, token=token, permutations=40)
    assert information.bits == pytest.approx(information.label_bits)
    # two cells of two labels on 300 independent tokens: twice what 600 independent assignments
    # would give
    assert information.permuted == pytest.approx(1 / (2 * 300 * np.log(2)), rel=0.6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: table([0, 1], [0]),
            "label: wanted one for each of the 2 experts, or `token`, got 1",
        ),
        (
            lambda: table([0, 1], [0, 1], token=[0, 2]),
            "token: wanted rows of the 2 labels, got 0 to 2",
        ),
        (lambda: table([0, -1], [0, 1]), "expert: wanted whole numbers from 0, got -1"),
        (
            lambda: table([0, 3], [0, 1], shape=(3, 2)),
            "expert: wanted numbers below 3, from `shape`, got 3",
        ),
        (
            lambda: table([0.5], [0]),
            "expert: wanted integer numbers, got an array of dtype float64",
        ),
        (lambda: cv([[1.0]]), r"load: wanted shape \(E,\), got \(1, 1\)"),
        (lambda: load(routing(), valid=[1, 1]), r"valid: wanted bool of shape \(4,\)"),
        (
            lambda: mutual_information([0], [0], np.random.default_rng(0), permutations=0),
            "permutations: wanted a whole number of at least 1, got 0",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.uint32])
def test_labels_of_every_integer_type_are_counted(dtype):
    """Labels of an image are uint8: "Python integer -1 out of bounds for uint8"."""
    expert = np.array([0, 1, 1, 3])
    label = np.array([2, 0, 2, 2])
    wanted = diagnostics.table(expert, label)
    for a, b in ((expert, label.astype(dtype)), (expert.astype(dtype), label.astype(dtype))):
        np.testing.assert_array_equal(diagnostics.table(a, b), wanted)
        assert diagnostics.dispatch_entropy(a, b) == diagnostics.dispatch_entropy(expert, label)
        rng = np.random.default_rng(0)
        assert diagnostics.mutual_information(a, b, rng).bits > 0


@pytest.mark.parametrize("number", [-1, 8, 10**9, 2**62, 2**63 - 1])
def test_an_expert_or_a_label_that_no_table_has_room_for(number):
    """Counting allocates as many places as the largest number; 2⁶³ − 1 corrupted the heap."""
    rng = np.random.default_rng(0)
    routing, _ = top_k.route({"w": np.eye(4)}, rng.normal(size=(6, 4)), k=1, renormalise=False)
    for name in ("expert", "token"):
        wrong = getattr(routing, name).copy()
        wrong[2] = number
        for function in (diagnostics.load, diagnostics.importance, diagnostics.dropped_share):
            with pytest.raises(InputError, match=rf"routing\.{name}: wanted numbers from 0 to"):
                function(routing._replace(**{name: wrong}))
    if number == 8:
        return
    label = np.array([0, 1, number])
    with pytest.raises(InputError, match="label: wanted"):
        diagnostics.table(np.array([0, 1, 0]), label)
    with pytest.raises(InputError, match="label: wanted"):
        diagnostics.dispatch_entropy(np.array([0, 1, 0]), label)
