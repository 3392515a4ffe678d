"""EM as a training method: exact and partial M steps never lower the likelihood."""

import itertools

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.base.numerics import softmax
from moe_np.training.methods import em
from tests.support.training import first_steps, least_squares, linear_problem, logistic_problem


def test_gradients_of_the_m_step():
    problem, rng = linear_problem(4), np.random.default_rng(5)
    params = problem.init(rng)
    resp = softmax(rng.normal(size=(40, 3)))
    for part, make in (("experts", em.experts_objective), ("gate", em.gate_objective)):
        objective = make(problem, resp)
        grads = objective(params[part])[1]()

        def value(arrays, objective=objective):
            return objective(arrays)[0].sum()

        errors = gradient_error(value, params[part], grads, rng)
        assert max(errors.values()) < 1e-7, (part, errors)


def linear_with_exact_m_step(seed):
    return linear_problem(seed, E=1 + seed % 4, sigma=0.2 + 0.03 * seed, exact=True)


def linear_with_partial_m_step(seed):
    return linear_problem(seed, E=1 + seed % 4, sigma=0.2 + 0.03 * seed)


def logistic(seed):
    return logistic_problem(seed, E=1 + seed % 4)


PROBLEMS = [linear_with_exact_m_step, linear_with_partial_m_step, logistic]


@pytest.mark.parametrize("make", PROBLEMS)
def test_em_never_lowers_the_likelihood(make):
    for seed in range(24):
        losses = [step.loss for step in first_steps(em.train, make(seed), 8, seed)]
        assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses)), seed
        assert losses[-1] < losses[0]


def test_a_partial_m_step_goes_to_the_exact_one():
    problem, rng = linear_problem(3), np.random.default_rng(0)
    params = problem.init(rng)["experts"]
    resp = softmax(rng.normal(size=(40, 3)))
    objective = em.experts_objective(problem, resp)
    ascended, _, passes = em.ascend(objective, params, np.ones(3), 400)
    exact, _ = least_squares(None, problem.x, problem.y, resp)
    for name in exact:
        np.testing.assert_allclose(ascended[name], exact[name], atol=1e-5)
    assert passes > 400


def test_a_block_at_its_maximum_stays_and_the_other_blocks_go_on():
    problem, rng = linear_problem(3), np.random.default_rng(0)
    params = problem.init(rng)["experts"]
    resp = softmax(rng.normal(size=(40, 3)))
    resp[:, 0] = 0  # nothing to learn for expert 0
    objective = em.experts_objective(problem, resp)
    ascended, step_sizes, _ = em.ascend(objective, params, np.ones(3), 2)
    assert np.array_equal(ascended["W"][0], params["W"][0]) and step_sizes[0] > 0
    assert not np.array_equal(ascended["W"][1], params["W"][1])
