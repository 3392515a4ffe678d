"""The evolution strategy: crossover of whole experts, and inherited step sizes."""

import numpy as np
import pytest

from moe_np.training.methods import evolutionary


def test_children_have_each_expert_whole_from_one_of_two_parents():
    rng, owner = np.random.default_rng(0), np.repeat([0, 1, 2, 0, 1, 2], 4)
    parents = np.array([[1.0], [2.0], [3.0]]) * np.ones(24)
    children, sizes = evolutionary.breed(rng, parents, np.full(3, 1e-9), 300, owner)
    genes = np.rint(children).astype(int)
    np.testing.assert_allclose(children, genes, atol=1e-6)
    per_expert = np.stack([genes[:, owner == i] for i in range(3)], axis=1)
    assert (per_expert == per_expert[:, :, :1]).all()
    combinations = {tuple(row) for row in per_expert[:, :, 0]}
    assert all(len(set(parents_of)) <= 2 for parents_of in combinations)
    assert len(combinations) > 15
    assert (sizes > 0).all() and sizes.std() > 0


def test_step_sizes_are_inherited():
    rng = np.random.default_rng(1)
    sigma = np.array([0.1, 10.0])
    _, sizes = evolutionary.breed(rng, np.zeros((2, 50)), sigma, 2000, np.zeros(50, int))
    logs = np.log(sizes)
    assert logs.mean() == pytest.approx(0, abs=0.01)  # the geometric mean of .1 and 10
    assert logs.std() == pytest.approx(0.1, rel=0.06)  # τ = 1/√100
