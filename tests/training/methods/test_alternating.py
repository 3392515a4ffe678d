"""Alternating training: the turns, their passes, and where it ends."""

import functools

import numpy as np
import pytest

from moe_np.training.methods import alternating, joint
from tests.support.training import first_steps, linear_problem


def test_the_parts_take_turns():
    steps = first_steps(functools.partial(alternating.train, turn=3), linear_problem(2), 14)
    parts = [step.updated[0] for step in steps[1:]]
    assert parts == ["experts"] * 3 + ["gate"] * 3 + ["experts"] * 3 + ["gate"] * 3 + ["experts"]
    assert [step.passes for step in steps[:8]] == [0.5, 1.5, 2.5, 3.5, 5, 6, 7, 8.5]


def test_turns_of_one_step_end_where_joint_training_does():
    problem = linear_problem(1, E=2)
    options = {"initial": problem.init(np.random.default_rng(0)), "lr": 0.05}
    by_joint = first_steps(joint.train, problem, 900, **options)
    by_turns = first_steps(alternating.train, problem, 1800, **options)
    assert by_joint[-1].loss == pytest.approx(by_turns[-1].loss, abs=2e-3)
