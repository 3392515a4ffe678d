"""Step views of runs: the states of EM with their data, and the steps of any training."""

import itertools

import numpy as np
import pytest

from moe_np.mixtures import em, jacobs1991
from moe_np.show import walk
from moe_np.show.steps import Steps
from moe_np.show.walk import em_walk
from moe_np.training.methods.method import Step
from tests.support.training import METHODS, first_steps, linear_problem


def test_em_has_its_data_in_every_state():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (40, 1))
    y = np.where(x > 0, 2 * x, -x) + 0.1 * rng.normal(size=(40, 1))
    options = {"family": em.Gaussian(), "max_iter": 3}
    states = list(walk.em(x, y, 2, rng=np.random.default_rng(1), **options))
    wanted = list(em_walk.steps(x, y, 2, rng=np.random.default_rng(1), **options))
    assert [s.phase for s in states] == [s.phase for s in wanted] and states[1].phase == "E step"
    assert np.array_equal(states[1]["resp"], wanted[1]["resp"])
    assert np.array_equal(states[1]["y"], y)
    assert states[1].axes["x"] == ("N", "D")


def test_the_epochs_of_a_mixture():
    rng = np.random.default_rng(0)
    params = jacobs1991.init_mixture(rng, 3, 2, 1, init_range=0.3)
    x, d = rng.normal(size=(7, 2)), rng.uniform(size=(7, 1))
    epochs = list(itertools.islice(jacobs1991.train(params, x, d, lr=0.1), 6))
    training = jacobs1991.train(params, x, d, lr=0.1)
    steps = walk.training(training, every=2, last=5, data={"x": x, "d": d})
    assert isinstance(steps, Steps)
    states = list(steps)
    assert [s.phase for s in states] == ["step 0", "step 2", "step 4", "step 5"]
    for state, number in zip(states, (0, 2, 4, 5), strict=True):
        assert state["loss"] == epochs[number].loss
        np.testing.assert_array_equal(state["W"], epochs[number].params["W"])
        np.testing.assert_array_equal(state["p"], epochs[number].cache.p)
    assert states[0].axes["U"] == ("D", "E") and list(states[0].arrays)[:2] == ["x", "d"]
    assert [s.phase for s in walk.training(iter(epochs))][-1] == "step 5", "it ends with its source"


@pytest.mark.parametrize("name", METHODS)
def test_the_steps_of_every_training_method(name):
    problem = linear_problem()
    data = {"x": problem.x, "y": problem.y}
    states = walk.training(METHODS[name](problem, np.random.default_rng(0)), data=data)
    for step in first_steps(METHODS[name], problem, 4):
        state = next(states)
        assert state.phase == f"step {step.number}"
        assert state["loss"] == step.loss and state["passes"] == step.passes
        for arrays in step.params.values():
            for key, value in arrays.items():
                assert np.array_equal(state[key], value), key
        for key, value in step.cache._asdict().items():
            if isinstance(value, np.ndarray) and key not in ("x", "y"):
                shown = state.arrays.get(key, state.arrays.get(f"cache.{key}"))
                assert np.array_equal(shown, value), key
        assert all(word in state.note for word in step.updated)


def test_parts_with_the_same_names():
    params = {"experts": {"W": np.ones(2)}, "gate": {"W": np.zeros(2)}}
    (state,) = walk.training([Step(3, 0.5, ("experts",), params, None, 6.0)])
    assert state.phase == "step 3" and state.note == "Changed: experts." and state["loss"] == 0.5
    assert state["W"].tolist() == [1, 1] and state["gate.W"].tolist() == [0, 0]
    assert state["passes"] == 6
