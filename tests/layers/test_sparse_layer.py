"""The layer: a naive loop, gradients with the router, limits, dropped tokens, permutations, the
ends of the range.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import experts, sparse_layer
from moe_np.models import patch_cnn
from moe_np.routing import top_k
from moe_np.routing.contract import Routing

SIZES = {
    "linear": (experts.LINEAR, (3,)),
    "gelu": (experts.GELU, (6, 3)),
    "swiglu": (experts.SWIGLU, (6, 3)),
}
KINDS = {**SIZES, "relu": (experts.RELU, (6, 3))}
every = pytest.mark.parametrize("kind", KINDS)
D = 5


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def backend(request, monkeypatch):
    """Everything here holds for both; with the JIT switched off the loops run in the interpreter."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", request.param)
    return request.param


def random_routing(rng, n_tokens, n_experts, k, drop=0.0, dtype=np.float64):
    """k different experts a token, in any order of the rows, some of them dropped."""
    choice = np.argsort(rng.random((n_tokens, n_experts)), axis=1)[:, :k]
    token, expert = np.repeat(np.arange(n_tokens), k), choice.ravel()
    demand = np.zeros((n_tokens, n_experts), bool)
    demand[token, expert] = True
    kept = rng.permutation(np.flatnonzero(rng.random(len(token)) >= drop))
    weight = rng.normal(size=len(kept)).astype(dtype)
    return Routing(token[kept], expert[kept], weight, None, demand.astype(dtype), demand)


def setup(kind, seed=0, n_tokens=11, n_experts=4, k=2, drop=0.2, dtype=np.float64, share=()):
    rng = np.random.default_rng(seed)
    expert, sizes = KINDS[kind]
    params = expert.init(rng, D, n_experts, *sizes, share=share)
    params = {
        name: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) for name, p in params.items()
    }
    x = rng.normal(size=(n_tokens, D)).astype(dtype)
    return expert, params, x, random_routing(rng, n_tokens, n_experts, k, drop, dtype)


def naive(expert, params, x, routing):
    """One assignment after the other, each with its expert alone."""
    out = [0.0] * len(x)
    for n, m, weight in zip(routing.token, routing.expert, routing.weight, strict=True):
        alone = {name: p[m % len(p)][None] for name, p in params.items()}
        y, _ = expert.forward(alone, x[n : n + 1], np.array([0, 1]))
        out[n] = out[n] + weight * y[0]
    width = next(p.shape[-1] for name, p in params.items() if name in ("w", "w2"))
    return np.array([row + np.zeros(width) for row in out]).reshape(len(x), width)


def check_gradient(kind, seed, **options):
    expert, params, x, routing = setup(kind, seed, **options)
    rng = np.random.default_rng(seed + 1)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dout = rng.normal(size=out.shape)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    step = 1e-3
    if kind == "relu":
        z = (
            np.einsum(
                "nd,mdh->nmh", x, np.broadcast_to(params["w1"], (routing.demand.shape[1], D, 6))
            )
            + params["b1"]
        )
        step = min(1e-3, np.abs(z).min(initial=1) / 50)

    def loss(p):
        moved = routing._replace(weight=p["routing.weight"])
        own = {name: v for name, v in p.items() if name in params}
        return (
            sparse_layer.forward_numpy(own, p["x"], moved, expert, routing.demand.shape[1])[0]
            * dout
        ).sum()

    everything = {**params, "x": x, "routing.weight": routing.weight}
    found = gradient_error(
        loss, everything, {**grads, "x": dx, "routing.weight": dweight}, rng, step=step
    )
    assert max(found.values()) < 1e-7, found


@every
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


@pytest.mark.parametrize(
    ("kind", "share"), [("relu", ("w1", "b1")), ("swiglu", ("w1",)), ("gelu", ("b2", "w2"))]
)
def test_gradient_with_shared_parameters(kind, share):
    check_gradient(kind, 3, share=share)


@every
def test_it_is_the_loop_over_assignments(kind):
    expert, params, x, routing = setup(kind)
    out, _ = sparse_layer.forward(params, x, routing, expert)
    np.testing.assert_allclose(out, naive(expert, params, x, routing), rtol=1e-11, atol=1e-13)


def test_errata_08_a_dropped_token_contributes_exactly_nothing():
    expert, params, x, routing = setup("gelu")
    kept = (routing.token != 4) & (routing.token != 7)
    fewer = routing._replace(
        token=routing.token[kept], expert=routing.expert[kept], weight=routing.weight[kept]
    )
    out, cache = sparse_layer.forward(params, x, fewer, expert)
    dx, grads, dweight = sparse_layer.backward(np.ones_like(out), cache)
    assert (out[[4, 7]] == 0).all() and (dx[[4, 7]] == 0).all() and dweight.shape == (kept.sum(),)
    dout = np.ones_like(out)
    dout[[4, 7]] = 1e9  # what arrives at a dropped token reaches nobody
    _, again, dweight2 = sparse_layer.backward(dout, cache)
    assert all(np.array_equal(grads[name], again[name]) for name in grads) and np.array_equal(
        dweight, dweight2
    )


def test_errata_12_no_row_of_a_token_is_lost():
    expert, params, x, _ = setup("linear", n_experts=4)
    everyone = sparse_layer.everyone(len(x), 4)
    out, _ = sparse_layer.forward(params, x, everyone, expert)
    np.testing.assert_allclose(
        out, sum(x @ w + b for w, b in zip(params["w"], params["b"], strict=True)), rtol=1e-12
    )


@every
def test_one_expert_is_a_dense_layer(kind):
    expert, params, x, _ = setup(kind, n_experts=1, k=1)
    out, cache = sparse_layer.forward(params, x, sparse_layer.everyone(len(x), 1), expert)
    y, dense = expert.forward(params, x, np.array([0, len(x)]))
    np.testing.assert_allclose(out, y, rtol=1e-12, atol=1e-14)
    dx, grads, _ = sparse_layer.backward(y, cache)
    dx2, grads2 = expert.backward(y, dense)
    np.testing.assert_allclose(dx, dx2, rtol=1e-11, atol=1e-13)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads2[name], rtol=1e-11, atol=1e-13)


@every
def test_k_equal_to_e_is_the_dense_mixture(kind):
    expert, params, x, _ = setup(kind)
    router = top_k.init(np.random.default_rng(5), D, 4)
    routing, _ = top_k.route(router, x, k=4, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dout = np.cos(np.arange(out.size)).reshape(out.shape)
    dx, grads, _ = sparse_layer.backward(dout, cache)
    dense, dx2 = np.zeros_like(out), np.zeros_like(x)
    for m in range(4):
        y, own = expert.forward(
            {name: p[m : m + 1] for name, p in params.items()}, x, np.array([0, len(x)])
        )
        dense += routing.probs[:, m : m + 1] * y
        drows, grads2 = expert.backward(routing.probs[:, m : m + 1] * dout, own)
        dx2 += drows
        for name in grads:
            np.testing.assert_allclose(grads[name][m], grads2[name][0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(out, dense, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(dx, dx2, rtol=1e-11, atol=1e-13)


@every
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

    start = {"w": router["w"], "x": x}
    found = gradient_error(
        loss, start, {"w": grads["w"], "x": dx + dx_gate}, np.random.default_rng(7), step=1e-5
    )
    assert max(found.values()) < 1e-6, found


@every
def test_the_order_of_assignments_tokens_and_experts_does_not_matter(kind):
    expert, params, x, routing = setup(kind, n_tokens=30)
    rng = np.random.default_rng(9)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dx, grads, dweight = sparse_layer.backward(out, cache)

    mixed = rng.permutation(len(routing.token))
    other = routing._replace(
        token=routing.token[mixed], expert=routing.expert[mixed], weight=routing.weight[mixed]
    )
    out2, cache2 = sparse_layer.forward(params, x, other, expert)
    np.testing.assert_allclose(out2, out, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        sparse_layer.backward(out, cache2)[2], dweight[mixed], rtol=1e-11, atol=1e-12
    )

    tokens, names = (
        rng.permutation(len(x)),
        rng.permutation(4),
    )  # new row n is old row tokens[n]; new expert likewise
    other = routing._replace(
        token=np.argsort(tokens)[routing.token],
        expert=np.argsort(names)[routing.expert],
        demand=routing.demand[tokens][:, names],
    )
    out3, cache3 = sparse_layer.forward(
        {k: p[names] for k, p in params.items()}, x[tokens], other, expert
    )
    np.testing.assert_allclose(out3, out[tokens], rtol=1e-11, atol=1e-13)
    dx3, grads3, dweight3 = sparse_layer.backward(out[tokens], cache3)
    np.testing.assert_allclose(dx3, dx[tokens], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dweight3, dweight, rtol=1e-10, atol=1e-12)
    for name in grads:
        np.testing.assert_allclose(grads3[name], grads[name][names], rtol=1e-10, atol=1e-12)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_changed(kind, dtype):
    expert, params, x, routing = setup(kind, dtype=dtype)
    for a in (x, *params.values(), *(a for a in routing if a is not None)):
        a.flags.writeable = False
    out, cache = sparse_layer.forward(params, x, routing, expert)
    kept = out.copy(), cache.y.copy()
    out.flags.writeable = False
    first, second = sparse_layer.backward(out, cache), sparse_layer.backward(out, cache)
    np.testing.assert_array_equal(first[0], second[0])
    assert np.array_equal(kept[0], out) and np.array_equal(kept[1], cache.y)
    assert out.dtype == first[0].dtype == first[2].dtype == dtype
    assert {k: (g.shape, g.dtype) for k, g in first[1].items()} == {
        k: (p.shape, dtype) for k, p in params.items()
    }


@every
def test_a_workspace_gives_the_same(kind):
    workspace = {}
    for seed in range(3):
        expert, params, x, routing = setup(kind, seed)
        (out, cache), (out2, cache2) = (
            sparse_layer.forward(params, x, routing, expert, workspace=w) for w in (workspace, None)
        )
        assert np.array_equal(out, out2)
        for a, b in zip(
            sparse_layer.backward(out, cache), sparse_layer.backward(out, cache2), strict=True
        ):
            assert (
                all(np.array_equal(a[k], b[k]) for k in a)
                if isinstance(a, dict)
                else np.array_equal(a, b)
            )


@every
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


@every
def test_all_on_one_expert_and_all_dropped(kind):
    expert, params, x, _ = setup(kind)
    N, ones = len(x), np.ones(len(x))
    demand = np.zeros((N, 4), bool)
    one = Routing(np.arange(N), np.full(N, 2), ones, None, demand.astype(float), demand)
    out, cache = sparse_layer.forward(params, x, one, expert)
    np.testing.assert_allclose(out, naive(expert, params, x, one), rtol=1e-11, atol=1e-13)
    assert all((g[[0, 1, 3]] == 0).all() for g in sparse_layer.backward(out, cache)[1].values())
    nobody = Routing(one.token[:0], one.expert[:0], ones[:0], None, demand.astype(float), demand)
    out, cache = sparse_layer.forward(params, x, nobody, expert)
    dx, grads, dweight = sparse_layer.backward(np.ones_like(out), cache)
    assert out.shape == (N, 3) and (out == 0).all() and (dx == 0).all() and len(dweight) == 0
    assert all((g == 0).all() for g in grads.values())


def test_cubic_experts_come_through_the_same_door():
    """The layer with Chen's expert is the mixture of `moe_np.models.patch_cnn`."""
    rng = np.random.default_rng(4)
    params = patch_cnn.init(rng, 3, 2, D)
    params["theta"] = rng.normal(size=(3, D))
    x = rng.normal(size=(20, 4, D))
    out, cache = patch_cnn.mixture_forward(params, x, None, activation="cubic", gate="softmax")
    dx, grads = patch_cnn.mixture_backward(out, cache)
    demand = np.eye(3, dtype=bool)[cache.expert]
    routing = Routing(np.arange(20), cache.expert, cache.weight, cache.h, cache.gate.probs, demand)
    own = {"w": params["w"], "b": params["b"]}
    out2, cache2 = sparse_layer.forward(own, x, routing, experts.CUBIC)
    np.testing.assert_allclose(out2, out, rtol=1e-12)
    dx2, grads2, dweight = sparse_layer.backward(out, cache2)
    gate_dx, gate = patch_cnn.router_backward(
        patch_cnn.gate_backward(dweight, cache.gate), cache.router
    )
    np.testing.assert_allclose(dx2 + gate_dx, dx, rtol=1e-11, atol=1e-12)
    for name, g in {**grads2, **gate}.items():
        np.testing.assert_allclose(g, grads[name], rtol=1e-11, atol=1e-12)


def test_shared_experts_are_a_sum_of_dense_layers():
    """DeepSeekMoE: the layer with `everyone` as its routing; added to the routed part by the
    caller.
    """
    expert, params, x, _ = setup("swiglu", n_experts=2)
    out, cache = sparse_layer.forward(params, x, sparse_layer.everyone(len(x), 2), expert)
    own = [
        expert.forward({k: p[m : m + 1] for k, p in params.items()}, x, np.array([0, len(x)]))
        for m in range(2)
    ]
    np.testing.assert_allclose(out, own[0][0] + own[1][0], rtol=1e-12)
    dx, grads, _ = sparse_layer.backward(out, cache)
    back = [expert.backward(out, c) for _, c in own]
    np.testing.assert_allclose(dx, back[0][0] + back[1][0], rtol=1e-11)
    np.testing.assert_allclose(grads["w2"][1], back[1][1]["w2"][0], rtol=1e-11)


# --- a mixture as the expert of a mixture ---------------------------------------------------------


def nested_setup(seed=0, n_tokens=14):
    rng = np.random.default_rng(seed)
    expert = sparse_layer.nested(top_k, {"k": 2, "renormalise": True}, experts.GELU)
    params = expert.init(rng, D, 3, 4, 6, 3)
    params = {k: p + 0.3 * rng.normal(size=p.shape) for k, p in params.items()}
    return expert, params, rng.normal(size=(n_tokens, D)), random_routing(rng, n_tokens, 3, 2)


@pytest.mark.parametrize("n_tokens", [14, 1, 0])
def test_nested_gradient(n_tokens):
    expert, params, x, routing = nested_setup(n_tokens=n_tokens)
    rng = np.random.default_rng(8)
    out, cache = sparse_layer.forward(params, x, routing, expert)
    dout = rng.normal(size=out.shape)
    dx, grads, dweight = sparse_layer.backward(dout, cache)

    def loss(p):
        own = {k: v for k, v in p.items() if k in params}
        moved = routing._replace(weight=p["routing.weight"])
        return (sparse_layer.forward(own, p["x"], moved, expert)[0] * dout).sum()

    start = {**params, "x": x, "routing.weight": routing.weight}
    found = gradient_error(
        loss, start, {**grads, "x": dx, "routing.weight": dweight}, rng, step=1e-4
    )
    assert max(found.values()) < 1e-7, found


def test_nested_is_the_mixture_of_its_mixtures():
    expert, params, x, routing = nested_setup()
    out, cache = sparse_layer.forward(params, x, routing, expert)
    expected = np.zeros_like(out)
    for m in range(3):
        own = {k: p[m] for k, p in params.items() if not k.startswith("router.")}
        inner, _ = top_k.route({"w": params["router.w"][m]}, x, k=2, renormalise=True)
        y, _ = sparse_layer.forward(own, x, inner, experts.GELU)
        mine = routing.expert == m
        expected[routing.token[mine]] += routing.weight[mine][:, None] * y[routing.token[mine]]
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-13)
    assert set(cache.experts.inner) == {0, 1, 2} and cache.experts.inner[0][0].probs.shape[1] == 4


# --- the door -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, x, r: (p, x[0], r), r"x: wanted shape \(N, D\), got \(5,\)"),
        (
            lambda p, x, r: (p, np.where(x == x[0, 0], np.nan, x), r),
            r"x: wanted finite numbers, got nan at index \(0, 0\)",
        ),
        (lambda p, x, r: (p, x.astype(np.float32), r), "x: wanted float64, the type of params"),
        (lambda p, x, r: (p, x[:, :3], r), "x: wanted 5 features, as the experts read, got 3"),
        (
            lambda p, x, r: ({**p, "b2": p["b2"][:3]}, x, r),
            r"params\['b2'\]: wanted axis 0 of 4 experts",
        ),
        (lambda p, x, r: (p, x[:9], r), r"routing.demand: wanted 9 tokens, as x has, got 11"),
        (
            lambda p, x, r: (p, x, r._replace(token=r.token - 1)),
            "routing.token: wanted numbers from 0 to 10, got -1",
        ),
        (
            lambda p, x, r: (p, x, r._replace(expert=r.expert + 1)),
            "routing.expert: wanted numbers from 0 to 3, got 1 to 4",
        ),
        (lambda p, x, r: (p, x, r._replace(token=r.token[1:])), "routing.token: wanted"),
        (lambda p, x, r: (p, x, r._replace(expert=r.expert * 1.0)), "routing.expert: wanted"),
        (
            lambda p, x, r: (p, x, r._replace(weight=r.weight.astype(np.float32))),
            "routing.weight: wanted float64",
        ),
        (
            lambda p, x, r: (p, x, r._replace(weight=r.weight * np.inf)),
            "routing.weight: wanted finite numbers",
        ),
        (
            lambda p, x, r: (
                p,
                x,
                r._replace(token=np.repeat(r.token[::2], 2), expert=np.repeat(r.expert[::2], 2)),
            ),
            "routing: wanted each expert at most once a token, got one twice",
        ),
    ],
)
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
