"""The hash that tells ranks with different parameters."""

import copy

import numpy as np
import pytest

from moe_np.parallel import agreement, in_process
from moe_np.parallel.exchanges import RankError

PARAMS = {
    "embed": {"w": np.arange(6.0).reshape(2, 3)},
    "layers": [{"router": {"w": np.ones((3, 2))}}, {"router": {"w": np.zeros((3, 2))}}],
}


def compare(changed, rank=2, ranks=4):
    trees = [PARAMS] * ranks
    trees[rank] = changed
    in_process.run([agreement.same(tree) for tree in trees])


def changed(leaf):
    tree = copy.deepcopy(PARAMS)
    tree["layers"][1]["router"]["w"] = leaf
    return tree


def test_equal_parameters_pass():
    compare(copy.deepcopy(PARAMS))
    in_process.run([agreement.same({}), agreement.same({})])
    in_process.run([agreement.same(PARAMS)])


@pytest.mark.parametrize(
    "leaf",
    [
        np.where(np.arange(6).reshape(3, 2) == 5, 1e-300, 0.0),
        np.zeros((3, 2), np.float32),
        np.zeros((2, 3)),
        -np.zeros((3, 2)),
    ],
)
@pytest.mark.parametrize("rank", [0, 3])
def test_a_bit_a_type_and_a_shape_are_told_with_rank_and_leaf(leaf, rank):
    wanted = rf"^rank {rank}: params, layers\.1\.router\.w: wanted the same as other ranks have"
    with pytest.raises(RankError, match=wanted) as error:
        compare(changed(leaf), rank)
    assert error.value.rank == rank


def test_other_leaves_are_told():
    for tree in ({**PARAMS, "head": {"w": np.ones(2)}}, {"embed": PARAMS["embed"]}):
        with pytest.raises(RankError, match="rank 2: params, the names of the leaves: wanted"):
            compare(tree)
