"""Separate training: its three phases, and the solution with given labels."""

import functools

import numpy as np

from moe_np.training.methods import method, separate
from tests.support.training import first_steps, least_squares, linear_problem


def test_it_has_three_phases():
    steps = first_steps(functools.partial(separate.train, expert_steps=4), linear_problem(2), 10)
    wanted = [(), ("clusters",), *[("experts",)] * 4, *[("gate",)] * 4]
    assert [step.updated for step in steps] == wanted
    rounds = 2 * steps[1].passes
    assert rounds >= 1 and rounds == int(rounds) and steps[-1].passes == steps[1].passes + 8


def test_experts_fit_their_own_cluster():
    """With labels given, expert m ends at the least squares of its cases, and the gate at the
    labels' softmax fit.
    """
    problem = linear_problem(2, E=2)
    labels = (problem.x[:, 0] > 0.2).astype(int)
    labels[:3] = 1 - labels[:3]  # not separable, so that the gate's fit is finite
    train = functools.partial(separate.train, expert_steps=1500, labels=labels, lr=0.02)
    params = first_steps(train, problem, 3000)[-1].params
    exact, _ = least_squares(None, problem.x, problem.y, np.eye(2)[labels])
    np.testing.assert_allclose(params["experts"]["W"], exact["W"], atol=1e-4)
    _, cache = method.forward(problem, params)
    assert abs(problem.x.T @ (cache.p - np.eye(2)[labels])).max() < 1e-3
