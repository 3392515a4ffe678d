"""Placement of experts: packing, replicas, and the same bits wherever an expert is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.parallel import in_process, layer_step, placement
from moe_np.parallel.placement import Placement
from tests.parallel.test_expert_parallel import check_equal_bits, over_ranks, problem


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_permutation_of_the_experts_has_the_bits_of_one_process(ranks, dtype):
    args = problem(60, 8, 8, dtype, k=4)
    rng = np.random.default_rng(ranks)
    for _ in range(3):
        rank = rng.permutation(np.arange(8) % ranks)
        placed = Placement(np.arange(8), rank, ranks)
        check_equal_bits(layer_step.in_one_process(args), over_ranks(args, ranks, placed))


@settings(max_examples=25)
@given(
    load=st.lists(st.integers(0, 50), min_size=2, max_size=8),
    ranks=st.integers(1, 7),
    extra=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_replicas_have_the_bits_of_one_process_with_these_slots(load, ranks, extra, seed):
    E = len(load)
    slots = min(max(E, ranks) + extra, E * ranks)
    placed = placement.replicated(np.array(load, float), ranks, slots)
    args = problem(30, 8, E, np.float64, k=min(3, E), seed=seed)
    wanted = layer_step.in_one_process(args, placed)
    check_equal_bits(wanted, over_ranks(args, ranks, placed))
    rng = np.random.default_rng(seed)
    shuffled = placed._replace(rank=rng.permutation(placed.rank))
    check_equal_bits(wanted, over_ranks(args, ranks, shuffled))


def test_replicas_are_the_same_layer_to_rounding():
    args = problem(200, 8, 6, np.float64, k=3, skew=2.0)
    placed = placement.replicated(np.array([9.0, 5, 1, 1, 1, 1]), 4, 9)
    differ = layer_step.differences(
        layer_step.in_one_process(args), layer_step.in_one_process(args, placed)
    )
    assert all(value is None or value < 1e-12 for value in differ.values())
    assert any(value is not None for value in differ.values())


def test_all_replicas_get_the_same_gradient():
    args = problem(60, 8, 4, np.float64, k=3)
    placed = placement.replicated(np.array([9.0, 1, 1, 1]), 3, 6)
    assert np.bincount(placed.expert).tolist() == [3, 1, 1, 1]
    results = in_process.run([layer_step.on_a_rank(args, r, 3, placed) for r in range(3)])
    gradients = [
        result.experts["w1"][place]
        for rank, result in enumerate(results)
        for place, slot in enumerate(placed.of_rank(rank))
        if placed.expert[slot] == 0
    ]
    assert len(gradients) == 3
    assert len({g.tobytes() for g in gradients}) == 1


def test_packing_puts_the_heaviest_on_the_emptiest_rank_with_room():
    load = np.array([10.0, 9, 1, 1, 5, 6])
    placed = placement.packed(load, 3)
    assert placement.load_of_ranks(load, placed).tolist() == [11.0, 10.0, 11.0]
    assert np.bincount(placed.rank).tolist() == [2, 2, 2]
    assert placement.load_of_ranks(load, placement.contiguous(6, 3)).max() == 19
    uneven = placement.packed(np.ones(8), 3)
    assert sorted(np.bincount(uneven.rank)) == [2, 3, 3]


def test_hot_experts_get_replicas():
    load = np.array([12.0, 4, 2, 2])
    assert np.bincount(placement.replicated(load, 4, 6).expert).tolist() == [3, 1, 1, 1]
    assert np.bincount(placement.replicated(load, 4, 8).expert).tolist() == [4, 2, 1, 1]
    assert np.bincount(placement.replicated(load, 2, 6).expert).tolist() == [2, 2, 1, 1]
    placed = placement.replicated(load, 4, 8)
    assert placement.load_of_ranks(load, placed).max() <= 5
    assert placement.load_of_ranks(load, placed).sum() == 20


def test_a_token_takes_the_replica_of_its_number():
    placed = Placement(np.array([0, 0, 1, 2, 2, 2]), np.zeros(6, int), 1)
    slot = placement.slot_of(np.array([0, 0, 1, 2, 2, 2]), np.array([4, 5, 5, 6, 7, 8]), placed)
    assert slot.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: placement.contiguous(4, 5), "ranks: wanted at most one per expert, 4, got 5"),
        (lambda: placement.packed(np.ones(2), 3), "ranks: wanted at most one per expert, 2, got 3"),
        (lambda: placement.packed(-np.ones(2), 1), "load: wanted numbers of at least 0"),
        (lambda: placement.replicated(np.ones(4), 2, 3), "slots: wanted .* at least 4 and at most"),
        (lambda: placement.replicated(np.ones(2), 2, 5), "at most 4, got 5"),
    ],
)
def test_what_cannot_be_placed_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shared_parameters_and_other_numbers_of_experts_are_refused():
    params = {"w1": np.zeros((1, 2, 3))}
    with pytest.raises(ValueError, match=r"wanted 4 experts \(a shared parameter cannot be"):
        placement.params_of_rank(params, 0, placement.contiguous(4, 2))
