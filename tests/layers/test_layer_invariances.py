"""Every router with the layer: invariances, conservation of tokens, the gradient of the whole."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import balance, sparse_layer
from moe_np.routing import contract, expert_choice, hashing, hierarchical
from tests.support.chain import KINDS, OUT, chain, close, make_experts, over
from tests.support.routers import CASES, route, setup

pytestmark = pytest.mark.usefixtures("backend")

# --- what must not matter -------------------------------------------------------------------------

NAMELESS = (hierarchical, hashing)  # experts have places in these, and in groups


@over({n: c for n, c in CASES.items() if c.router not in NAMELESS and n != "bias_balanced groups"})
def test_permuting_experts(case):
    params, x = setup(case)
    expert_params = make_experts()
    order = np.random.default_rng(5).permutation(4)
    a = chain(case, params, expert_params, x)
    moved = {name: np.take(p, order, axis=p.shape.index(4)) for name, p in params.items()}
    b = chain(case, moved, {name: p[order] for name, p in expert_params.items()}, x)
    close(b.out, a.out)
    close(b.dx, a.dx)
    for name, g in a.grads.items():
        close(b.grads[name], g[order])
    for name, g in a.router.items():
        close(b.router[name], np.take(g, order, axis=g.shape.index(4)))


def depends_on_order(case):
    """A hash of the place in the batch; or first come, first served."""
    in_order = case.router is not expert_choice and "capacity_factor" in case.options
    return case.router is hashing or in_order


@over({name: case for name, case in CASES.items() if not depends_on_order(case)})
def test_permuting_tokens(case):
    params, x = setup(case)
    expert_params = make_experts()
    order = np.random.default_rng(6).permutation(len(x))
    a = chain(case, params, expert_params, x)
    b = chain(case, params, expert_params, x[order])
    close(b.out, a.out[order])
    close(b.dx, a.dx[order])
    for name, g in {**a.grads, **a.router}.items():
        close({**b.grads, **b.router}[name], g)


ONE_CHOICE = ("switch", "expert_choice")
TWO_CHOICES = ("gshard", "gshard code", "st_moe", "capacity_top_k")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*ONE_CHOICE, *TWO_CHOICES]),
    st.integers(0, 9999),
    st.integers(0, 30),
    st.integers(2, 6),
    st.floats(0.05, 3.0),
)
def test_conservation_under_capacity(name, seed, N, E, factor):
    """Kept + dropped = demanded; no expert takes more than C, and only a full one drops a token."""
    case = CASES[name]._replace(options={**CASES[name].options, "capacity_factor": factor})
    params, x = setup(case, seed, n_tokens=N, n_experts=E)
    expert_params = make_experts(E)
    p = chain(case, params, expert_params, x)
    kept = np.zeros((N, E), bool)
    demand = p.routing.demand
    kept[p.routing.token, p.routing.expert] = True
    assert kept.sum() == len(p.routing.token) and (kept <= demand).all()
    C = contract.capacity(N, E, 2 if name in TWO_CHOICES else 1, factor)
    assert kept.sum(axis=0).max(initial=0) <= C
    if name == "expert_choice":
        assert (kept.sum(axis=0) == min(C, N)).all()
    else:
        full = kept.sum(axis=0) == C
        assert not (demand & ~kept)[:, ~full].any()
    assert (p.out[~kept.any(axis=1)] == 0).all()


# --- the whole gradient ---------------------------------------------------------------------------


# not differentiated: the choice of the experts, and the f of balance losses
HELD = ("token", "expert", "demand")


@pytest.mark.slow
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
    """Route, layer, task and balance losses, and back: the gradient of every parameter."""
    case = CASES[name]
    even = case.router is hierarchical or "n_group" in case.options
    E = data.draw(st.sampled_from([4, 6]) if even else st.integers(max(2, case.fewest), 6))
    params, x = setup(case, seed, N, features, E)
    expert_params = make_experts(E, features, kind, seed=seed)
    target = np.random.default_rng(seed).normal(size=(N, OUT))

    def losses(routing, out):
        added = balance.total([(0.3, balance.switch(routing)), (0.1, balance.z_loss(routing))])
        task = 0.5 * ((out - target) ** 2).mean()
        return task + added.value, (out - target) / out.size, added.dlogits

    try:
        routing, router_cache = route(case, params, x, seed)
    except InputError as error:
        assert str(error).startswith("cap: wanted at least")  # more places than tokens
        return
    out, cache = sparse_layer.forward(expert_params, x, routing, KINDS[kind])
    value, dout, dlogits = losses(routing, out)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    dx_router, router_grads = case.router.route_backward(dweight, dlogits, router_cache)
    changed = []

    def loss(p):
        moved, _ = route(case, {n: p[f"router {n}"] for n in params}, p["x"], seed)
        held = (np.array_equal(getattr(moved, n), getattr(routing, n)) for n in HELD)
        changed.append(not all(held))
        if changed[-1]:
            return 0.0
        nets = {n: p[n] for n in expert_params}
        moved_out, _ = sparse_layer.forward(nets, p["x"], moved, KINDS[kind])
        return losses(moved, moved_out)[0]

    point = {**expert_params, "x": x, **{f"router {n}": p for n, p in params.items()}}
    gradient = {**grads, "x": dx + dx_router, **{f"router {n}": g for n, g in router_grads.items()}}
    errors = gradient_error(loss, point, gradient, np.random.default_rng(seed), step=3e-4)
    assume(not any(changed))  # a tie within reach of the difference
    # a gradient that is much smaller than the loss is lost in the rounding of the difference
    visible = {n: e for n, e in errors.items() if np.linalg.norm(gradient[n]) > 1e-3 * value}
    assert visible and max(visible.values()) < 1e-7, errors
