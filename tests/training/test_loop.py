"""The training loop: what one update is, the same bits after an interruption, accumulation, and
training that stops at NaN."""

from typing import NamedTuple

import numpy as np
import pytest

from moe_np import kernels
from moe_np.base import optim
from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.training import loop


class Losses(NamedTuple):
    task: float
    tokens: int


OPTIONS = loop.Options(updates=12, learning_rate=0.05, warmup=3, clip=0.5, seed=7)
TRUE = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]])


def params():
    return {"layers": [{"w": np.full((3, 2), 0.1), "b": np.full(2, 0.2)}]}


def minibatch(rng, rows=5):
    x = rng.normal(size=(rows, 3))
    return x, x @ TRUE


def gradients(params, batch, rng):
    """Half the mean squared error of a linear layer whose input has noise."""
    x, y = batch
    x = x + 0.01 * rng.normal(size=x.shape)
    layer = params["layers"][0]
    error = x @ layer["w"] + layer["b"] - y
    grads = {"w": x.T @ error / len(x), "b": error.mean(axis=0)}
    return Losses(0.5 * np.square(error).sum() / len(x), len(x)), {"layers": [grads]}


def bits(params):
    return {path: leaf.tobytes() for path, leaf in leaves(params).items()}


def test_an_update_is_clipping_then_adamw_with_the_scheduled_rate():
    step = next(loop.train(loop.initial_state(params()), gradients, minibatch, OPTIONS))
    rng = np.random.default_rng([7, 1])
    losses, grads = gradients(params(), minibatch(rng), rng)
    clipped, norm = optim.clip_by_global_norm(grads, 0.5)
    rate = 0.05 / 3
    wanted, _ = optim.adamw(params(), clipped, lr=rate, weight_decay=0.1)
    assert step.number == 1
    assert step.tokens == 5
    assert step.gradient_norm == norm > 0.5
    assert step.losses.task == pytest.approx(losses.task, rel=1e-12)
    assert step.learning_rate == pytest.approx(rate)
    for path, leaf in leaves(step.state.params).items():
        np.testing.assert_allclose(leaf, leaves(wanted)[path], rtol=1e-12)


def test_the_compiled_update_is_taken_where_there_is_one(backend, monkeypatch):
    pytest.importorskip("numba")
    calls = []
    compiled = kernels.optim.update
    monkeypatch.setattr(kernels.optim, "update", lambda *a: calls.append(1) or compiled(*a))
    next(loop.train(loop.initial_state(params()), gradients, minibatch, OPTIONS))
    assert len(calls) == (len(leaves(params())) if backend == "numba" else 0)


def test_the_parameters_that_came_in_stay():
    before = params()
    for _ in loop.train(loop.initial_state(before), gradients, minibatch, OPTIONS):
        pass
    assert bits(before) == bits(params())


def test_the_loss_falls_and_the_last_rate_is_the_final_one():
    options = OPTIONS._replace(updates=300, weight_decay=0.0)
    steps = list(loop.train(loop.initial_state(params()), gradients, minibatch, options))
    assert len(steps) == 300
    assert steps[-1].losses.task < 0.01 < steps[0].losses.task
    assert steps[-1].learning_rate == pytest.approx(0.005)
    assert max(step.learning_rate for step in steps) == pytest.approx(0.05)


@pytest.mark.parametrize("stop", [1, 4, 11])
def test_training_goes_on_to_the_same_bits(stop):
    *_, whole = loop.train(loop.initial_state(params()), gradients, minibatch, OPTIONS)
    begun = loop.train(loop.initial_state(params()), gradients, minibatch, OPTIONS)
    for _ in range(stop):
        stored = next(begun).state
    *_, resumed = loop.train(stored, gradients, minibatch, OPTIONS)
    assert resumed.number == whole.number == 12
    assert bits(resumed.state.params) == bits(whole.state.params)
    assert bits(resumed.state.optimiser.v) == bits(whole.state.optimiser.v)


def test_micro_batches_count_by_their_valid_targets():
    """Errata 26: the mean over all valid targets, and not the mean of the micro-batches' means."""
    sizes = iter([2, 9])
    options = OPTIONS._replace(micro_batches=2, updates=1, clip=100.0)
    batches = []

    def uneven(rng):
        batches.append(minibatch(rng, next(sizes)))
        return batches[-1]

    def exact(params, batch, rng):
        return gradients(params, batch, np.random.default_rng(0))

    step = next(loop.train(loop.initial_state(params()), exact, uneven, options))
    parts = [exact(params(), batch, None) for batch in batches]
    mean = {
        path: sum(losses.tokens * leaves(grads)[path] for losses, grads in parts) / 11
        for path in leaves(params())
    }
    assert step.tokens == 11
    norm = np.sqrt(sum(np.square(g).sum() for g in mean.values()))
    assert step.gradient_norm == pytest.approx(norm, rel=1e-12)
    task = sum(losses.task * losses.tokens for losses, _ in parts) / 11
    assert step.losses.task == pytest.approx(task, rel=1e-12)


def test_what_a_model_refuses_is_told_with_the_update():
    def refuse(params, batch, rng):
        raise InputError("layer 1: x: wanted smaller numbers")

    with pytest.raises(loop.UpdateError, match=r"^update 1: layer 1: x: wanted") as error:
        next(loop.train(loop.initial_state(params()), refuse, minibatch, OPTIONS))
    assert error.value.number == 1
    broken = params()
    broken["layers"][0]["b"][1] = np.inf
    with pytest.raises(loop.NotFiniteError, match=r"in the parameter layers\.0\.b"):
        next(loop.train(loop.initial_state(broken), refuse, minibatch, OPTIONS))


def test_of_several_gradients_the_one_next_to_the_loss_is_named():
    def broken(params, batch, rng):
        losses, grads = gradients(params, batch, rng)
        for leaf in leaves(grads).values():
            leaf.flat[0] = np.nan
        return losses, grads

    with pytest.raises(loop.NotFiniteError) as error:
        next(loop.train(loop.initial_state(params()), broken, minibatch, OPTIONS))
    assert error.value.where == f"the gradient of {list(leaves(params()))[-1]}"


@pytest.mark.parametrize(
    ("breaks", "where"),
    [("loss", "the loss"), ("gradient", "the gradient of layers.0.b")],
)
def test_nan_stops_training_before_the_update(breaks, where):
    calls = []

    def broken(params, batch, rng):
        losses, grads = gradients(params, batch, rng)
        calls.append(len(calls))
        if len(calls) == 4 and breaks == "loss":
            losses = losses._replace(task=float("nan"))
        if len(calls) == 4 and breaks == "gradient":
            grads["layers"][0]["b"][1] = np.inf
        return losses, grads

    steps = []
    with pytest.raises(loop.NotFiniteError, match=f"update 4: wanted finite.*{where}") as error:
        for step in loop.train(loop.initial_state(params()), broken, minibatch, OPTIONS):
            steps.append(step)
    assert (error.value.number, error.value.where) == (4, where)
    assert steps[-1].number == 3
    assert all(np.isfinite(leaf).all() for leaf in leaves(steps[-1].state.params).values())


@pytest.mark.parametrize(
    "change",
    [
        {"updates": 0},
        {"warmup": -1},
        {"micro_batches": 0},
        {"seed": -1},
        {"learning_rate": 0.0},
        {"final": 1.5},
        {"weight_decay": -0.1},
        {"clip": 0.0},
    ],
)
def test_an_option_that_cannot_be_is_named(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}: wanted"):
        next(
            loop.train(
                loop.initial_state(params()), gradients, minibatch, OPTIONS._replace(**change)
            )
        )
