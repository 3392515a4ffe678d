"""Every router together with the layer: what must not matter, what must be kept, and the gradient
of the whole.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import balance, sparse_layer
from moe_np.routing import contract, expert_choice, hierarchical
from tests.support.chain import KINDS, OUT, chain, close, make_experts, over
from tests.support.routers import CASES, HASH, route, setup


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def backend(request, monkeypatch):
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", request.param)


# --- what must not matter -------------------------------------------------------------------------

AXIS = {"w": 1, "w_noise": 1, "bias": 0, "centroids": 0, "threshold": 0}  # of the experts
NAMELESS = (hierarchical, HASH)  # experts have places in these, and in groups


@over({n: c for n, c in CASES.items() if c.router not in NAMELESS and n != "bias_balanced groups"})
def test_permuting_experts(case):
    (params, x), own = setup(case), make_experts()
    order = np.random.default_rng(5).permutation(4)
    a = chain(case, params, own, x)
    moved = {name: np.take(p, order, axis=AXIS[name]) for name, p in params.items()}
    b = chain(case, moved, {name: p[order] for name, p in own.items()}, x)
    close(b.out, a.out)
    close(b.dx, a.dx)
    for name, g in a.grads.items():
        close(b.grads[name], g[order])
    for name, g in a.router.items():
        close(b.router[name], np.take(g, order, axis=AXIS[name]))


@over(
    {
        n: c
        for n, c in CASES.items()
        if c.router is not HASH
        and (c.router is expert_choice or "capacity_factor" not in c.options)
    }
)
def test_permuting_tokens(case):
    (params, x), own = setup(case), make_experts()
    order = np.random.default_rng(6).permutation(len(x))
    a, b = chain(case, params, own, x), chain(case, params, own, x[order])
    close(b.out, a.out[order])
    close(b.dx, a.dx[order])
    for name, g in {**a.grads, **a.router}.items():
        close({**b.grads, **b.router}[name], g)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["switch", "gshard", "gshard code", "st_moe", "expert_choice"]),
    st.integers(0, 9999),
    st.integers(0, 30),
    st.integers(2, 6),
    st.floats(0.05, 3.0),
)
def test_conservation_under_capacity(name, seed, N, E, factor):
    """Kept + dropped = asked for; no expert takes more than C, and it drops only when it is full."""
    case = CASES[name]._replace(options={**CASES[name].options, "capacity_factor": factor})
    (params, x), own = setup(case, seed, n_tokens=N, n_experts=E), make_experts(E)
    p = chain(case, params, own, x)
    kept, asked = np.zeros((N, E), bool), p.routing.demand
    kept[p.routing.token, p.routing.expert] = True
    assert kept.sum() == len(p.routing.token) and (kept <= asked).all()
    C = contract.capacity(N, E, 2 if name in ("gshard", "gshard code", "st_moe") else 1, factor)
    assert kept.sum(axis=0).max(initial=0) <= C
    if name == "expert_choice":
        assert (kept.sum(axis=0) == min(C, N)).all()
    else:
        full = kept.sum(axis=0) == C
        assert not (asked & ~kept)[:, ~full].any()
    assert (p.out[~kept.any(axis=1)] == 0).all()


# --- the whole gradient ---------------------------------------------------------------------------


HELD = (
    "token",
    "expert",
    "demand",
)  # is not differentiated: the routing, and the f of balance losses


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([name for name, c in CASES.items() if c.learned]),
    st.sampled_from(["gelu", "swiglu"]),
    st.integers(0, 99999),
    st.integers(1, 8),
    st.integers(1, 5),
    st.data(),
)
def test_gradient_of_the_whole_chain(name, kind, seed, N, features, data):
    """Route, layer, task and balance losses, layer_backward, route_backward: every parameter, over
    shapes.
    """
    case = CASES[name]
    even = case.router is hierarchical or "n_group" in case.options
    E = data.draw(st.sampled_from([4, 6]) if even else st.integers(max(2, case.fewest), 6))
    (params, x), own = setup(case, seed, N, features, E), make_experts(E, features, kind, seed=seed)
    target = np.random.default_rng(seed).normal(size=(N, OUT))

    def losses(routing, out):
        (b, db), (z, dz) = balance.switch(routing), balance.z_loss(routing)
        return (
            0.5 * ((out - target) ** 2).mean() + 0.3 * b + 0.1 * z,
            (out - target) / out.size,
            0.3 * db + 0.1 * dz,
        )

    try:
        routing, gate = route(case, params, x, seed)
    except InputError as error:
        assert str(error).startswith("cap: wanted at least")  # too few tokens for so many places
        return
    out, cache = sparse_layer.forward(own, x, routing, KINDS[kind])
    start, dout, dlogits = losses(routing, out)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    dx_router, router_grads = case.router.route_backward(dweight, dlogits, gate)
    changed = []

    def loss(p):
        moved, _ = route(case, {n: p[f"router {n}"] for n in params}, p["x"], seed)
        changed.append(
            not all(np.array_equal(getattr(moved, n), getattr(routing, n)) for n in HELD)
        )
        if changed[-1]:
            return 0.0
        return losses(
            moved, sparse_layer.forward({n: p[n] for n in own}, p["x"], moved, KINDS[kind])[0]
        )[0]

    everything = {**own, "x": x, **{f"router {n}": p for n, p in params.items()}}
    gradient = {**grads, "x": dx + dx_router, **{f"router {n}": g for n, g in router_grads.items()}}
    found = gradient_error(loss, everything, gradient, np.random.default_rng(seed), step=3e-4)
    assume(not any(changed))  # a tie within reach of the difference
    # a gradient that is much smaller than the loss drowns in the rounding of the difference
    visible = {n: e for n, e in found.items() if np.linalg.norm(gradient[n]) > 1e-3 * start}
    assert visible and max(visible.values()) < 1e-7, found
