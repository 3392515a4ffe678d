"""Walks show what the package computes: the arrays of their states equal what its functions return."""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import balance
from moe_np.mixtures import jacobs1991 as model
from moe_np.routing import (
    noisy_top_k,
    top_k,
)
from moe_np.show import walk
from moe_np.show.steps import Steps
from moe_np.show.walk.em_walk import steps as em_steps
from tests.show.walk.test_mixture import mixture
from tests.support import routers
from tests.training.methods import test_methods as ways


def by_phase(steps):
    return {s.phase: s for s in steps}


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


# --- Balance losses -------------------------------------------------------------------------------

OPTIONS = {
    "device_level": {"device": np.array([0, 1, 1, 0])},
    "sequence_wise": {"sequence": np.arange(12) // 6, "k": 2},
}


@pytest.mark.parametrize("padding", [False, True], ids=["all", "padding"])
@pytest.mark.parametrize("name", [n for n in walk.losses.NAMES if n != "load"])
def test_every_balance_loss(name, padding):
    params, x = routers.setup(routers.CASES["top_k"])
    routing, _ = top_k.route(params, x, k=2, renormalise=True)
    valid = np.arange(12) < 9 if padding else None
    options = OPTIONS.get(name, {})
    loss = getattr(balance, name)(routing, valid=valid, **options)
    states = list(walk.balance(name, routing, valid=valid, **options))
    last = states[-1]
    same(last["value"], loss.value)
    gradient = "dweight" if name == "importance" else "dlogits"
    same(last[gradient], getattr(loss, gradient))
    E, by = 4, by_phase(states)
    again = {  # the value from what was shown on the way to it
        "switch": lambda: E * (last["f"] * last["P"]).sum(),
        "expert_level": lambda: E * (last["f"] * last["P"]).sum(),
        "gshard": lambda: last["product"].sum() / E,
        "z_loss": lambda: np.square(last["log_z"]).mean(),
        "token_entropy": lambda: last["H"].mean(),
        "mean_entropy": lambda: -(last["P"] * np.log(last["P"])).sum(),
        "device_level": lambda: (last["mean_f"] * last["sum_P"]).sum(),
        "sequence_wise": lambda: np.mean(
            [
                (f * last["p"][last["sequence"] == s].mean(axis=0)).sum()
                for s, f in enumerate(last["f"])
            ]
        ),
        "importance": lambda: by["mean and variance"]["variance"] / last["mean"] ** 2,
    }[name]()
    same(again, loss.value)
    if name != "sequence_wise":
        assert all(s.equation for s in states[1:])


def test_the_load_loss_of_the_noisy_gate():
    params, x = routers.setup(routers.CASES["noisy_top_k"])
    routing, cache = noisy_top_k.route(params, x, k=2, rng=np.random.default_rng(0))
    last = list(walk.balance("load", routing, cache=cache))[-1]
    loss = balance.load(cache)
    same(last["value"], loss.value)
    same(last["dload"], loss.dload)
    same(last["dw_noise"], noisy_top_k.load_backward(loss.dload, cache)[1]["w_noise"])
    with pytest.raises(InputError, match="cache: wanted that of noisy_top_k"):
        walk.balance("load", routing)
    with pytest.raises(InputError, match="name: wanted one of switch, "):
        walk.balance("fairness", routing)


def test_divided_by_k_or_not():
    params, x = routers.setup(routers.CASES["top_k"])
    routing, _ = top_k.route(params, x, k=2, renormalise=True)
    for divide, total in ((True, 1), (False, 2)):
        last = list(walk.balance("switch", routing, divide_by_k=divide))[-1]
        assert last["f"].sum() == pytest.approx(total)
        assert last["value"] == balance.switch(routing, divide_by_k=divide).value


# --- Runs -----------------------------------------------------------------------------------------


def test_em_has_its_data_in_every_state():
    em = pytest.importorskip("moe_np.mixtures.em")
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (40, 1))
    y = np.where(x > 0, 2 * x, -x) + 0.1 * rng.normal(size=(40, 1))
    steps = walk.em(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(1), max_iter=3)
    wanted = list(em_steps(x, y, 2, family=em.Gaussian(), rng=np.random.default_rng(1), max_iter=3))
    states = list(steps)
    assert [s.phase for s in states] == [s.phase for s in wanted] and states[1].phase == "E step"
    assert np.array_equal(states[1]["resp"], wanted[1]["resp"]) and np.array_equal(
        states[1]["y"], y
    )
    assert states[1].axes["x"] == ("N", "D")


def test_any_trainer_is_a_walk():
    params, x, d = mixture()
    steps = walk.training(model.train(params, x, d, lr=0.1), every=2, last=5, data={"x": x, "d": d})
    wanted = list(itertools.islice(model.train(params, x, d, lr=0.1), 6))
    states = list(steps)
    assert [s.phase for s in states] == ["step 0", "step 2", "step 4", "step 5"]
    for state, number in zip(states, (0, 2, 4, 5), strict=True):
        assert state["loss"] == wanted[number].loss
        same(state["W"], wanted[number].params["W"]), same(state["p"], wanted[number].cache.p)
    assert states[0].axes["U"] == ("D", "E") and list(states[0].arrays)[:2] == ["x", "d"]
    assert (
        isinstance(steps, Steps) and [s.phase for s in walk.training(iter(wanted))][-1] == "step 5"
    ), "and an end is an end"


@pytest.mark.parametrize("name", ways.TRAINERS)
def test_every_way_of_training_is_a_walk(name):
    problem = ways.small()
    wanted = ways.steps(ways.TRAINERS[name], problem, 4)
    steps = walk.training(
        ways.TRAINERS[name](problem, np.random.default_rng(0)),
        data={"x": problem.x, "y": problem.y},
    )
    for step in wanted:
        state = next(steps)
        assert (
            state.phase == f"step {step.number}"
            and state["loss"] == step.loss
            and state["passes"] == step.passes
        )
        for part in step.params.values():
            for k, value in part.items():
                assert np.array_equal(state[k], value), k
        for k, value in step.cache._asdict().items():
            if isinstance(value, np.ndarray) and k not in ("x", "y"):
                assert np.array_equal(state.arrays.get(k, state.arrays.get(f"cache.{k}")), value), k
        assert all(word in state.note for word in step.changed)


def test_a_trainer_of_parts():
    contract_of_training = pytest.importorskip("moe_np.training.methods.method")
    step = contract_of_training.Step(
        3, 0.5, ("experts",), {"experts": {"W": np.ones(2)}, "gate": {"W": np.zeros(2)}}, None, 6.0
    )
    (state,) = walk.training([step])
    assert state.phase == "step 3" and state.note == "Changed: experts." and state["loss"] == 0.5
    assert (
        state["W"].tolist() == [1, 1]
        and state["gate.W"].tolist() == [0, 0]
        and state["passes"] == 6
    )
