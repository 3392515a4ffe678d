"""The walk through the mixture of 1991: its states are the arrays of `mixtures.jacobs1991`."""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import jacobs1991
from moe_np.show import walk
from moe_np.show.walk.mixture import vowels


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def mixture(seed=0, N=7, D=2, E=3, C=1):
    rng = np.random.default_rng(seed)
    params = jacobs1991.init_mixture(rng, E, D, C)
    params = {name: p + 0.3 * rng.normal(size=p.shape) for name, p in params.items()}
    return params, rng.normal(size=(N, D)), rng.uniform(size=(N, C))


@pytest.mark.parametrize("error", jacobs1991.ERRORS)
def test_the_operations_of_an_epoch_are_those_of_the_mixture(error):
    params, x, d = mixture(C=2)
    steps = walk.vowels(params, x, d, lr=0.1, error=error)
    first = itertools.takewhile(lambda state: state.phase != "epoch 1: experts", steps)
    states = {state.phase: state for state in first}
    loss, cache = jacobs1991.system_forward(params, x, d, error)
    _, grads = jacobs1991.system_backward(np.ones_like(loss), cache)
    same(states["epoch 0: experts"]["o"], cache.o)
    same(states["epoch 0: gate"]["s"], cache.gate.s)
    same(states["epoch 0: gate"]["p"], cache.p)
    same(states["epoch 0: blend"]["y"], cache.y)
    same(states["epoch 0: error"]["loss"], loss)
    for name, g in grads.items():
        same(states["epoch 0: gradient"][f"d{name}"], g)
        same(states["epoch 0: update"][name], params[name] - 0.1 * g)
        same(states["epoch 1: start"][name], params[name] - 0.1 * g)
    back = states["epoch 0: backward, totals"]
    same(back["dtotals"].sum(axis=0), grads["b"])
    same(x.T @ back["ds"], grads["U"])
    assert ("epoch 0: responsibilities" in states) == (error == "mixture")
    assert states["epoch 0: experts"].axes["o"] == ("N", "E", "C") and back.axes["ds"] == ("N", "E")


def test_whole_epochs_are_those_of_train_and_end_where_it_stops():
    params, x, d = mixture()
    steps = walk.vowels(params, x, d, lr=0.5, every=3)
    for epoch in itertools.islice(jacobs1991.train(params, x, d, lr=0.5), 7):
        if epoch.number % 3 == 0:
            state = next(steps)
            assert state.phase == f"epoch {epoch.number}"
            assert state["squared_error"] == epoch.squared_error
            same(state["W"], epoch.params["W"])
            same(state["resp"], epoch.cache.scores.resp)
            foot = jacobs1991.decision_foot(epoch.params["W"][..., 0], epoch.params["b"][..., 0])
            same(state["foot"], foot)
    phases = [
        s.phase for s in walk.vowels(params, x, d, lr=0.5, every=4, stop=state["squared_error"])
    ]
    assert phases == ["epoch 0", "epoch 4", "epoch 6"]


def test_each_operation_ends_where_training_stops():
    params, x, d = mixture()
    _, second, *_ = itertools.islice(jacobs1991.train(params, x, d, lr=0.5), 3)
    states = list(walk.vowels(params, x, d, lr=0.5, stop=second.squared_error))
    assert states[-1].phase == "epoch 1: error"


def test_bad_input_is_named():
    params, x, d = mixture()
    with pytest.raises(InputError, match="every"):
        vowels(params, x, d, lr=0.5, every=0)
    with pytest.raises(InputError, match="wanted those of a mixture"):
        vowels(jacobs1991.init_net(np.random.default_rng(0), 3), x, d, lr=0.5)
    with pytest.raises(InputError, match="error: wanted one of"):
        vowels(params, x, d, lr=0.5, error="none")
