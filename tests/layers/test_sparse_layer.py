"""The sparse layer: a naive loop, gradients with the router, limits, dropped tokens, permutations,
the ends of the range, bad input.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import experts, shared_experts, sparse_layer
from moe_np.models import patch_cnn
from moe_np.routing import top_k
from moe_np.routing.contract import Routing
from tests.support.experts import cases, step_without_kink
from tests.support.layers import KINDS, D, setup

pytestmark = pytest.mark.usefixtures("backend")
all_kinds = pytest.mark.parametrize("kind", KINDS)


def selected(routing, rows):
    """The routing with some of its assignments, in another order."""
    token, expert, weight = (a[rows] for a in (routing.token, routing.expert, routing.weight))
    return routing._replace(token=token, expert=expert, weight=weight)


def naive(expert, params, x, routing):
    """One assignment after the other, each with its expert alone."""
    width = next(p.shape[-1] for name, p in params.items() if name in ("w", "w2"))
    out = np.zeros((len(x), width))
    for n, m, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        alone = {name: p[m % len(p)][None] for name, p in params.items()}
        y, _ = expert.forward(alone, x[n : n + 1], np.array([0, 1]))
        out[n] += weight * y[0]
    return out


def check_gradient(kind, seed, **options):
    expert, params, x, routing = setup(kind, seed, **options)
    rng = np.random.default_rng(seed + 1)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dout = rng.normal(size=out.shape)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    n_experts = routing.demand.shape[1]
    every_pair = np.tile(x, (n_experts, 1)), np.arange(n_experts + 1) * len(x)
    step = step_without_kink(cases()[kind], params, *every_pair)

    def loss(p):
        moved = routing._replace(weight=p["routing.weight"])
        nets = {name: v for name, v in p.items() if name in params}
        y, _ = sparse_layer.forward_numpy(nets, p["x"], moved, expert, n_experts)
        return (y * dout).sum()

    point = {**params, "x": x, "routing.weight": routing.weight}
    gradient = {**grads, "x": dx, "routing.weight": dweight}
    errors = gradient_error(loss, point, gradient, rng, step=step)
    assert max(errors.values()) < 1e-7, errors


@all_kinds
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_tokens=st.integers(0, 9),
    n_experts=st.integers(1, 5),
    data=st.data(),
)
def test_gradient(kind, seed, n_tokens, n_experts, data):
    k = data.draw(st.integers(1, n_experts))
    check_gradient(kind, seed, n_tokens=n_tokens, n_experts=n_experts, k=k)


@all_kinds
def test_gradient_with_shared_parameters(kind):
    check_gradient(kind, 3, share=cases()[kind].share)


@all_kinds
def test_it_is_the_loop_over_assignments(kind):
    expert, params, x, routing = setup(kind)
    out, _ = sparse_layer.forward(params, x, routing, expert)
    np.testing.assert_allclose(out, naive(expert, params, x, routing), rtol=1e-11, atol=1e-13)


def test_errata_08_a_dropped_token_contributes_exactly_nothing():
    expert, params, x, routing = setup("gelu")
    kept = (routing.token != 4) & (routing.token != 7)
    fewer = selected(routing, kept)
    out, cache = sparse_layer.forward(params, x, fewer, expert)
    dx, grads, dweight = sparse_layer.backward(np.ones_like(out), cache)
    assert (out[[4, 7]] == 0).all() and (dx[[4, 7]] == 0).all() and dweight.shape == (kept.sum(),)
    dout = np.ones_like(out)
    dout[[4, 7]] = 1e9  # the gradient that arrives at a dropped token has no effect
    _, grads2, dweight2 = sparse_layer.backward(dout, cache)
    assert all(np.array_equal(grads[name], grads2[name]) for name in grads)
    assert np.array_equal(dweight, dweight2)


def test_errata_12_no_row_of_a_token_is_lost():
    expert, params, x, _ = setup("linear", n_experts=4)
    out, _ = sparse_layer.forward(params, x, shared_experts.routing(len(x), 4), expert)
    expected = sum(x @ w + b for w, b in zip(params["w"], params["b"], strict=True))
    np.testing.assert_allclose(out, expected, rtol=1e-12)


@all_kinds
def test_one_expert_is_a_dense_layer(kind):
    expert, params, x, _ = setup(kind, n_experts=1, k=1)
    out, cache = sparse_layer.forward(params, x, shared_experts.routing(len(x), 1), expert)
    y, dense = expert.forward(params, x, np.array([0, len(x)]))
    np.testing.assert_allclose(out, y, rtol=1e-12, atol=1e-14)
    dx, grads, _ = sparse_layer.backward(y, cache)
    dx2, grads2 = expert.backward(y, dense)
    np.testing.assert_allclose(dx, dx2, rtol=1e-11, atol=1e-13)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads2[name], rtol=1e-11, atol=1e-13)


@all_kinds
def test_k_equal_to_e_is_the_dense_mixture(kind):
    expert, params, x, _ = setup(kind)
    router = top_k.init(np.random.default_rng(5), D, 4)
    routing, _ = top_k.route(router, x, k=4, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dout = np.cos(np.arange(out.size)).reshape(out.shape)
    dx, grads, _ = sparse_layer.backward(dout, cache)
    dense = np.zeros_like(out)
    dx2 = np.zeros_like(x)
    for m in range(4):
        alone = {name: p[m : m + 1] for name, p in params.items()}
        y, dense_cache = expert.forward(alone, x, np.array([0, len(x)]))
        p_m = routing.probs[:, m : m + 1]
        dense += p_m * y
        drows, grads2 = expert.backward(p_m * dout, dense_cache)
        dx2 += drows
        for name in grads:
            np.testing.assert_allclose(grads[name][m], grads2[name][0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(out, dense, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(dx, dx2, rtol=1e-11, atol=1e-13)


@all_kinds
def test_the_router_learns_through_the_layer(kind):
    """The whole chain, router and experts, against differences of the loss."""
    expert, params, x, _ = setup(kind, seed=2)
    router = {"w": np.random.default_rng(6).normal(size=(D, 4))}
    routing, gate = top_k.route(router, x, k=2, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dx, _, dweight = sparse_layer.backward(out, cache)
    dx_gate, grads = top_k.route_backward(dweight, None, gate)

    def loss(p):
        moved, _ = top_k.route({"w": p["w"]}, p["x"], k=2, renormalise=True)
        return 0.5 * (sparse_layer.forward(params, p["x"], moved, expert)[0] ** 2).sum()

    point = {"w": router["w"], "x": x}
    gradient = {"w": grads["w"], "x": dx + dx_gate}
    errors = gradient_error(loss, point, gradient, np.random.default_rng(7), step=1e-5)
    assert max(errors.values()) < 1e-6, errors


@all_kinds
def test_the_order_of_assignments_tokens_and_experts_does_not_matter(kind):
    expert, params, x, routing = setup(kind, n_tokens=30)
    rng = np.random.default_rng(9)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dx, grads, dweight = sparse_layer.backward(out, cache)

    mixed = rng.permutation(len(routing.token))
    out2, cache2 = sparse_layer.forward(params, x, selected(routing, mixed), expert)
    np.testing.assert_allclose(out2, out, rtol=1e-12, atol=1e-14)
    dweight2 = sparse_layer.backward(out, cache2)[2]
    np.testing.assert_allclose(dweight2, dweight[mixed], rtol=1e-11, atol=1e-12)

    tokens = rng.permutation(len(x))  # the new row n is the old row tokens[n]
    names = rng.permutation(4)  # the same of experts
    permuted = routing._replace(
        token=np.argsort(tokens)[routing.token],
        expert=np.argsort(names)[routing.expert],
        demand=routing.demand[tokens][:, names],
    )
    params3 = {name: p[names] for name, p in params.items()}
    out3, cache3 = sparse_layer.forward(params3, x[tokens], permuted, expert)
    np.testing.assert_allclose(out3, out[tokens], rtol=1e-11, atol=1e-13)
    dx3, grads3, dweight3 = sparse_layer.backward(out[tokens], cache3)
    np.testing.assert_allclose(dx3, dx[tokens], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dweight3, dweight, rtol=1e-10, atol=1e-12)
    for name in grads:
        np.testing.assert_allclose(grads3[name], grads[name][names], rtol=1e-10, atol=1e-12)


@all_kinds
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_changed(kind, dtype):
    expert, params, x, routing = setup(kind, dtype=dtype)
    for a in (x, *params.values(), *(a for a in routing if a is not None)):
        a.flags.writeable = False
    out, cache = sparse_layer.forward(params, x, routing, expert)
    out_before = out.copy()
    y_before = cache.y.copy()
    out.flags.writeable = False
    dx, grads, dweight = sparse_layer.backward(out, cache)
    dx2, _, _ = sparse_layer.backward(out, cache)
    np.testing.assert_array_equal(dx, dx2)
    assert np.array_equal(out_before, out) and np.array_equal(y_before, cache.y)
    assert out.dtype == dx.dtype == dweight.dtype == dtype
    wanted = {name: (p.shape, dtype) for name, p in params.items()}
    assert {name: (g.shape, g.dtype) for name, g in grads.items()} == wanted


@all_kinds
def test_a_workspace_gives_the_same(kind):
    workspace = {}
    for seed in range(3):
        expert, params, x, routing = setup(kind, seed)
        out, cache = sparse_layer.forward(params, x, routing, expert, workspace=workspace)
        out2, cache2 = sparse_layer.forward(params, x, routing, expert)
        assert np.array_equal(out, out2)
        dx, grads, dweight = sparse_layer.backward(out, cache)
        dx2, grads2, dweight2 = sparse_layer.backward(out, cache2)
        assert np.array_equal(dx, dx2) and np.array_equal(dweight, dweight2)
        assert all(np.array_equal(grads[name], grads2[name]) for name in params)


@all_kinds
@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "k"), [(0, 3, 2), (1, 3, 1), (1, 1, 1), (1, 4, 4), (3, 64, 2)]
)
def test_the_ends_of_the_range(kind, n_tokens, n_experts, k):
    expert, params, x, routing = setup(kind, n_tokens=n_tokens, n_experts=n_experts, k=k, drop=0)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    assert out.shape == (n_tokens, 3)
    np.testing.assert_allclose(out, naive(expert, params, x, routing), rtol=1e-11, atol=1e-13)
    dx, grads, dweight = sparse_layer.backward(out, cache)
    assert dx.shape == x.shape and dweight.shape == (n_tokens * k,)
    idle = np.setdiff1d(np.arange(n_experts), routing.expert)
    assert all((g[idle] == 0).all() for g in grads.values())


@all_kinds
def test_all_on_one_expert_and_all_dropped(kind):
    expert, params, x, _ = setup(kind)
    N = len(x)
    demand = np.zeros((N, 4), bool)
    all_on_2 = Routing(np.arange(N), np.full(N, 2), np.ones(N), None, demand * 1.0, demand)
    out, cache = sparse_layer.forward(params, x, all_on_2, expert)
    np.testing.assert_allclose(out, naive(expert, params, x, all_on_2), rtol=1e-11, atol=1e-13)
    assert all((g[[0, 1, 3]] == 0).all() for g in sparse_layer.backward(out, cache)[1].values())
    out, cache = sparse_layer.forward(params, x, selected(all_on_2, slice(0)), expert)
    dx, grads, dweight = sparse_layer.backward(np.ones_like(out), cache)
    assert out.shape == (N, 3) and (out == 0).all() and (dx == 0).all() and len(dweight) == 0
    assert all((g == 0).all() for g in grads.values())


def test_cubic_experts_in_the_layer():
    """The layer with Chen's expert is the mixture of `moe_np.models.patch_cnn`."""
    rng = np.random.default_rng(4)
    params = patch_cnn.init(rng, 3, 2, D)
    params["theta"] = rng.normal(size=(3, D))
    x = rng.normal(size=(20, 4, D))
    out, cache = patch_cnn.mixture_forward(params, x, None, activation="cubic", gate="softmax")
    dx, grads = patch_cnn.mixture_backward(out, cache)
    demand = np.eye(3, dtype=bool)[cache.expert]
    routing = Routing(np.arange(20), cache.expert, cache.weight, cache.h, cache.gate.probs, demand)
    nets = {"w": params["w"], "b": params["b"]}
    out2, cache2 = sparse_layer.forward(nets, x, routing, experts.CUBIC)
    np.testing.assert_allclose(out2, out, rtol=1e-12)
    dx2, grads2, dweight = sparse_layer.backward(out, cache2)
    dh = patch_cnn.gate_backward(dweight, cache.gate)
    gate_dx, gate = patch_cnn.router_backward(dh, cache.router)
    np.testing.assert_allclose(dx2 + gate_dx, dx, rtol=1e-11, atol=1e-12)
    for name, g in {**grads2, **gate}.items():
        np.testing.assert_allclose(g, grads[name], rtol=1e-11, atol=1e-12)


# --- bad input ------------------------------------------------------------------------------------


def twice(routing):
    """The first half of the assignments, each of them twice."""
    return selected(routing, np.repeat(np.arange(0, len(routing.token), 2), 2))


def changed(name, change):
    """A change of one parameter, as a change of the arguments of the layer."""
    return lambda p, x, r: ({**p, name: change(p[name])}, x, r)


def rerouted(**changes):
    """A change of fields of the routing, as a change of the arguments of the layer."""
    return lambda p, x, r: (p, x, r._replace(**{k: f(getattr(r, k)) for k, f in changes.items()}))


BAD = {
    "a token without its axis": (
        lambda p, x, r: (p, x[0], r),
        r"x: wanted shape \(N, D\), got \(5,\)",
    ),
    "patches": (
        lambda p, x, r: (p, x[:, None], r),
        r"x: wanted shape \(N, D\), got \(11, 1, 5\)",
    ),
    "not finite": (
        lambda p, x, r: (p, np.where(x == x[0, 0], np.nan, x), r),
        r"x: wanted finite numbers, got nan at index \(0, 0\)",
    ),
    "another type": (
        lambda p, x, r: (p, x.astype(np.float32), r),
        "x: wanted float64, the type of params",
    ),
    "too few features": (
        lambda p, x, r: (p, x[:, :3], r),
        "x: wanted 5 features, as the experts read, got 3",
    ),
    "too few tokens": (
        lambda p, x, r: (p, x[:9], r),
        "x: wanted 11 tokens, as the routing has, got 9",
    ),
    "too few experts": (
        changed("b2", lambda b: b[:3]),
        r"params\['b2'\]: wanted axis 0 of 4 experts",
    ),
    "a bias of another length": (
        changed("b1", lambda b: b[:, :4]),
        r"params\['b1'\]: wanted shape \(4, 6\), got \(4, 4\)",
    ),
    "a matrix with another fan-in": (
        changed("w2", lambda w: w[:, :4]),
        r"params\['w2'\]: wanted shape \(4, 6, 3\), got \(4, 4, 3\)",
    ),
    "a matrix without its last axis": (
        changed("w2", lambda w: w[:, :, 0]),
        r"params\['w2'\]: wanted shape \(4, 6, D_out\), got \(4, 6\)",
    ),
    "no second bias": (
        lambda p, x, r: ({name: p[name] for name in ("w1", "b1", "w2")}, x, r),
        "params: wanted w1, b1, w2, b2, got w1, b1, w2$",
    ),
    "a parameter that the expert does not have": (
        lambda p, x, r: ({**p, "w3": p["w1"]}, x, r),
        "params: wanted w1, b1, w2, b2, got w1, b1, w2, b2, w3$",
    ),
    "a token below 0": (
        rerouted(token=lambda token: token - 1),
        "routing.token: wanted numbers from 0 to 10, got -1",
    ),
    "an expert too many": (
        rerouted(expert=lambda expert: expert + 1),
        "routing.expert: wanted numbers from 0 to 3, got 1 to 4",
    ),
    "a token too few": (
        rerouted(token=lambda token: token[1:]),
        "routing.token: wanted 22 integers, one per weight, got int64",
    ),
    "experts that are not integers": (
        rerouted(expert=lambda expert: expert * 1.0),
        "routing.expert: wanted 22 integers, one per weight, got float64",
    ),
    "weights of another type": (
        rerouted(weight=lambda weight: weight.astype(np.float32)),
        "routing.weight: wanted float64, the type of x",
    ),
    "weights that are not finite": (
        rerouted(weight=lambda weight: weight * np.inf),
        "routing.weight: wanted finite numbers",
    ),
    "an expert twice": (
        lambda p, x, r: (p, x, twice(r)),
        "routing: wanted each expert at most once per token, got one of them twice",
    ),
}


@pytest.mark.parametrize(("change", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(change, words):
    expert, params, x, routing = setup("relu", drop=0)
    params, x, routing = change(params, x, routing)
    with pytest.raises(InputError, match=words):
        sparse_layer.forward(params, x, routing, expert)


def test_a_gradient_of_the_wrong_shape_is_named():
    expert, params, x, routing = setup("relu")
    _, cache = sparse_layer.forward(params, x, routing, expert)
    with pytest.raises(InputError, match=r"dout: wanted shape \(11, 3\), got \(11, 5\)"):
        sparse_layer.backward(x, cache)
