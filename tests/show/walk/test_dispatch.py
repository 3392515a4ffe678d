"""The walk through the sparse layer: its states are the arrays of `moe_np.layers.sparse_layer`."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k
from moe_np.show import walk
from moe_np.show.walk.dispatch import dispatch, layer


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def problem(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 4))
    routing, _ = top_k.route(top_k.init(rng, 4, 3), x, k=2, renormalise=True)
    return experts.SWIGLU.init(rng, 4, 3, 5), x, routing, rng.normal(size=(6, 4))


def test_the_counting_sort_place_by_place():
    _, x, routing, _ = problem()
    states = {state.phase: state for state in dispatch(routing, x, per_assignment=True)}
    order, offsets = sparse_layer.by_expert(routing.expert, 3)
    assert np.array_equal(states["count"]["count"], np.bincount(routing.expert, minlength=3))
    assert np.array_equal(states["offsets"]["offsets"], offsets)
    assert np.array_equal(states["place assignment 11"]["order"], order)
    assert (states["place assignment 0"]["order"] == -1).sum() == 11
    gathered = states["gather"]
    assert np.array_equal(gathered["order"], order)
    assert np.array_equal(gathered["rows"], x[routing.token[order]])


def test_a_sort_without_tokens_gathers_no_rows():
    phases = [state.phase for state in walk.dispatch(problem()[2])]
    assert phases == ["assignments", "count", "offsets", "order", "sorted"]


def test_the_layer_there_and_back():
    params, x, routing, dout = problem()
    states = list(walk.layer(params, x, routing, experts.SWIGLU, dout))
    out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    last = states[-1]
    same(last["out"], out)
    same(last["y"], cache.y)
    same(last["dx"], dx)
    same(last["dweight"], dweight)
    for name, g in grads.items():
        same(last[f"d{name}"], g)
    combined = [state["out"] for state in states if state.phase.startswith("combine")]
    assert len(combined) == 3 and not np.array_equal(combined[0], combined[2])


def test_no_dout_is_no_backward_pass():
    params, x, routing, dout = problem()
    states = layer(params, x, routing, experts.SWIGLU)
    assert not any(state.phase.startswith("backward") for state in states)
    with pytest.raises(InputError, match="dout: wanted the shape of out"):
        layer(params, x, routing, experts.SWIGLU, dout[:2])
