"""A new router is one file: here it stands in a test, and nothing else in the package knows of it.

The expert whose direction is nearest by angle, weighted by the cosine brought into (0, 1): nobody's
paper.
"""

import sys
from typing import NamedTuple

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.experiments.router_zoo import systems
from moe_np.experiments.router_zoo.experiment import Config, run_one, spec_of
from moe_np.layers import balance, diagnostics, sparse_layer
from moe_np.layers.experts import GELU
from moe_np.routing import contract
from moe_np.routing import routers as routers_by_walking
from moe_np.routing.contract import Routing
from tests.routing import test_contract as common
from tests.support import routers

# --- the router -----------------------------------------------------------------------------------


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    x_unit: np.ndarray
    w_unit: np.ndarray
    expert: np.ndarray
    weight: np.ndarray


EXAMPLE = {}


def init(rng, d_model, n_experts, *, dtype=np.float64):
    return {"w": rng.normal(size=(d_model, n_experts)).astype(dtype)}


def route(params, x, *, training=None, rng=None):
    x, w = contract.check_tokens(x, params), params["w"]
    x_unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    w_unit = w / np.linalg.norm(w, axis=0)
    cosine = x_unit @ w_unit
    expert = cosine.argmax(axis=1)
    token = np.arange(len(x))
    weight = (1 + cosine[token, expert]) / 2
    demand = contract.demand_of(expert[:, None], w.shape[1])
    return Routing(token, expert, weight, cosine, (1 + cosine) / 2, demand), Cache(
        x, w, x_unit, w_unit, expert, weight
    )


def route_backward(dweight, dlogits, cache):
    x, w, x_unit, w_unit, expert, _ = cache
    dcosine = np.zeros((len(x), w.shape[1]), x.dtype) if dlogits is None else dlogits.copy()
    dcosine[np.arange(len(x)), expert] += dweight / 2
    dx_unit, dw_unit = contract.linear_backward(dcosine, x_unit, w_unit)
    dx = (dx_unit - x_unit * (x_unit * dx_unit).sum(axis=1, keepdims=True)) / np.linalg.norm(
        x, axis=1, keepdims=True
    )
    dw = (dw_unit - w_unit * (w_unit * dw_unit).sum(axis=0)) / np.linalg.norm(w, axis=0)
    return dx, {"w": dw}


# --- and what the package makes of it -------------------------------------------------------------

COSINE = sys.modules[__name__]
CASE = routers.Case(COSINE, {})


@pytest.mark.parametrize("seed", range(5))
def test_its_gradient(seed):
    common.test_gradient(CASE, seed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_keeps_the_contract(dtype):
    common.test_shapes_types_and_read_only_input(CASE, dtype)
    common.test_conservation(CASE)
    common.test_evaluation_is_deterministic(CASE)
    common.test_errata_13_causality(CASE)
    common.test_no_tokens(CASE)
    common.test_without_a_balance_loss_dlogits_is_none(CASE)


def test_the_layer_takes_it_and_so_does_a_balance_loss():
    """Layer and balance loss together, forward and backward, against finite differences."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))
    experts = GELU.init(rng, 5, 4, 6)
    experts = {k: p + 0.1 * rng.normal(size=p.shape) for k, p in experts.items()}
    router, dout = init(rng, 5, 4), rng.normal(size=(30, 5))

    def forward(router, experts, x):
        routing, router_cache = route(router, x)
        out, layer_cache = sparse_layer.forward(experts, x, routing, GELU)
        added = balance.total([(0.3, balance.switch(routing))])
        caches = router_cache, layer_cache, added.dlogits
        return (out * dout).sum() + added.value, routing, caches

    _, routing, (router_cache, layer_cache, dlogits) = forward(router, experts, x)
    dx, grads, dweight = sparse_layer.backward(dout, layer_cache)
    dx_router, router_grads = route_backward(dweight, dlogits, router_cache)

    def loss(p):
        value, moved, _ = forward({"w": p["w"]}, {k: p[k] for k in experts}, p["x"])
        assert np.array_equal(moved.expert, routing.expert), "a tie"
        return value

    everything = {**router, **experts, "x": x}
    errors = gradient_error(
        loss, everything, {**router_grads, **grads, "x": dx + dx_router}, rng, step=1e-4
    )
    assert max(errors.values()) < 1e-7, errors
    assert diagnostics.load(routing).sum() == 30 and diagnostics.dropped_share(routing) == 0


def test_the_zoo_takes_it_without_a_line_of_its_own(monkeypatch):
    found_by_walking = {**routers_by_walking(), "cosine": COSINE}
    setups = systems.with_all_routers(systems.TABLE, found_by_walking)
    assert list(setups) == [*systems.TABLE, "cosine"]
    monkeypatch.setitem(systems.SETUPS, "cosine", setups["cosine"])
    config = Config(n_keys=256, d_model=8, n_values=5, n_experts=8, hidden=4, batch=64, epochs=15)
    result = run_one(spec_of(config, "cosine", 0))
    assert result["perplexity"] < 4 and result["experts"] == 1
