"""The walk through a load-balancing loss: its states lead to the value and gradient of the loss."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import balance
from moe_np.routing import noisy_top_k, top_k
from moe_np.show import walk
from moe_np.show.walk.losses import NAMES
from tests.support import routers

OPTIONS = {
    "device_level": {"device": np.array([0, 1, 1, 0])},
    "sequence_wise": {"sequence": np.arange(12) // 6, "k": 2},
}
E = 4

# the value of a loss from the arrays of its last state
VALUES = {
    "switch": lambda last: E * (last["f"] * last["P"]).sum(),
    "expert_level": lambda last: E * (last["f"] * last["P"]).sum(),
    "gshard": lambda last: last["product"].sum() / E,
    "z_loss": lambda last: np.square(last["log_z"]).mean(),
    "token_entropy": lambda last: last["H"].mean(),
    "mean_entropy": lambda last: -(last["P"] * np.log(last["P"])).sum(),
    "device_level": lambda last: (last["mean_f"] * last["sum_P"]).sum(),
    "sequence_wise": lambda last: np.mean(
        [(f * last["p"][last["sequence"] == s].mean(axis=0)).sum() for s, f in enumerate(last["f"])]
    ),
    "importance": lambda last: last["variance"] / last["mean"] ** 2,
}


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def routing_of_top_2():
    params, x = routers.setup(routers.CASES["top_k"])
    return top_k.route(params, x, k=2, renormalise=True)[0]


@pytest.mark.parametrize("padding", [False, True], ids=["all", "padding"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "load"])
def test_every_balance_loss(name, padding):
    routing, options = routing_of_top_2(), OPTIONS.get(name, {})
    valid = np.arange(12) < 9 if padding else None
    loss = getattr(balance, name)(routing, valid=valid, **options)
    states = list(walk.balance(name, routing, valid=valid, **options))
    last = states[-1]
    same(last["value"], loss.value)
    gradient = "dweight" if name == "importance" else "dlogits"
    same(last[gradient], getattr(loss, gradient))
    same(VALUES[name](last), loss.value)
    if name != "sequence_wise":
        assert all(state.equation for state in states[1:])


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
    routing = routing_of_top_2()
    for divide, total in ((True, 1), (False, 2)):
        last = list(walk.balance("switch", routing, divide_by_k=divide))[-1]
        assert last["f"].sum() == pytest.approx(total)
        assert last["value"] == balance.switch(routing, divide_by_k=divide).value
