"""The exchange in two steps: the rows of the direct one, and the messages of a hierarchy."""

import numpy as np
import pytest

from moe_np.parallel import in_process, layer_step, two_level
from moe_np.parallel.exchanges import Gather, Send
from tests.parallel.test_expert_parallel import check_equal_bits, problem


def ranks_of(table, node):
    """Ranks that send table[r, s] rows to each rank, numbered by sender and receiver."""
    R = len(table)

    def rank(r):
        rows = [[r, s, n] for s in range(R) for n in range(table[r, s])]
        rows = np.array(rows).reshape(-1, 3)
        return (yield Send(rows, table[r], table[:, r], "dispatch"))

    if node is None:
        return [rank(r) for r in range(R)]
    return [two_level.exchanged(rank(r), r, R, node) for r in range(R)]


@pytest.mark.parametrize(("R", "node"), [(1, 1), (4, 2), (6, 2), (6, 3), (8, 4), (4, 1), (4, 4)])
def test_the_rows_are_those_of_the_direct_exchange(R, node):
    rng = np.random.default_rng(R)
    for table in (rng.integers(0, 5, (R, R)), np.zeros((R, R), int), np.eye(R, dtype=int) * 3):
        direct = in_process.run(ranks_of(table, None))
        for wanted, got in zip(direct, in_process.run(ranks_of(table, node)), strict=True):
            assert wanted.tolist() == got.tolist()


def test_no_message_leaves_its_step():
    """The first step stays in the node; the second goes between ranks of the same number."""
    rng = np.random.default_rng(0)
    seen = [
        (asked[0].name, np.stack([e.counts for e in asked]))
        for asked in in_process.exchanges(ranks_of(rng.integers(1, 5, (6, 6)), 3), [None] * 6)
    ]
    assert [name.partition(", ")[2] for name, _ in seen] == [
        *("counts in the node", "in the node", "between nodes"),
    ]
    r, s = np.indices((6, 6))
    assert not seen[1][1][r // 3 != s // 3].any()
    assert not seen[2][1][r % 3 != s % 3].any()
    assert seen[2][1][r % 3 == s % 3].all()


@pytest.mark.parametrize("node", [2, 3])
def test_a_step_of_the_layer_has_the_bits_of_one_process(node):
    args = problem(50, 8, 8, np.float32, k=3)
    ranks = [two_level.exchanged(layer_step.whole(args, r, 6), r, 6, node) for r in range(6)]
    wanted = layer_step.in_one_process(args)
    for result in in_process.run(ranks):
        check_equal_bits(wanted, result)


def test_what_is_gathered_is_left_as_it_is():
    def rank(r):
        return (yield Gather(np.array([r]), "r"))

    got = in_process.run([two_level.exchanged(rank(r), r, 4, 2) for r in range(4)])
    assert [np.concatenate(arrays).tolist() for arrays in got] == [[0, 1, 2, 3]] * 4


def test_messages_between_nodes():
    assert two_level.messages(64, 8) == (56, 7)
    assert two_level.messages(2048, 8) == (2040, 255)


def test_a_node_that_does_not_divide_the_ranks_is_refused():
    with pytest.raises(ValueError, match="node: wanted a divisor of 6 ranks, got 4"):
        next(two_level.exchanged(iter([]), 0, 6, 4))
