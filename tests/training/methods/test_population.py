"""Mixtures as vectors: which expert an entry belongs to, and the losses of a population."""

import numpy as np
import pytest

from moe_np.base.params import flatten, unflatten
from moe_np.training.methods import method
from moe_np.training.methods.population import (
    expert_of_entry,
    population_losses,
    stack_mixtures,
)
from tests.support.training import linear_problem, logistic_problem


def test_an_entry_belongs_to_an_expert_or_to_its_column_of_the_gate():
    params = linear_problem(0, E=3, D=2, C=2).init(np.random.default_rng(0))
    vector = flatten(params)
    owner = expert_of_entry(params)
    assert vector.shape == owner.shape == (3 * 2 * 2 + 3 * 2 + 2 * 3 + 3,)
    for i in range(3):
        moved = unflatten(vector + (owner == i), params)
        for part, name in (("experts", "W"), ("experts", "b"), ("gate", "U"), ("gate", "c")):
            axis = 0 if part == "experts" else -1
            change = moved[part][name] - params[part][name]
            for j in range(3):
                assert np.allclose(np.take(change, j, axis=axis), float(i == j))


def test_stacked_mixtures_have_all_experts_and_columns():
    like = linear_problem(0, E=3, D=2, C=2).init(np.random.default_rng(0))
    vectors = np.random.default_rng(1).normal(size=(4, flatten(like).size))
    stacked = stack_mixtures(vectors, like)
    for m, vector in enumerate(vectors):
        params = unflatten(vector, like)
        rows = slice(3 * m, 3 * m + 3)
        assert np.array_equal(stacked["experts"]["W"][rows], params["experts"]["W"])
        assert np.array_equal(stacked["gate"]["U"][:, rows], params["gate"]["U"])


@pytest.mark.parametrize("make", [linear_problem, logistic_problem])
def test_the_losses_of_a_population_are_those_of_its_mixtures(make):
    problem, rng = make(0), np.random.default_rng(0)
    like = problem.init(rng)
    vectors = rng.normal(size=(6, flatten(like).size))
    wanted = [method.loss_of(problem, unflatten(vector, like)) for vector in vectors]
    np.testing.assert_allclose(population_losses(problem, vectors, like), wanted, rtol=1e-12)


def test_a_loss_that_is_nan_counts_as_infinity():
    problem = linear_problem(0)
    like = problem.init(np.random.default_rng(0))
    vectors = np.stack([flatten(like)] * 2)
    vectors[1] *= 1e200
    losses = population_losses(problem, vectors, like)
    assert np.isfinite(losses[0]) and losses[1] == np.inf
