"""Every router together with the layer: the ends of the range, one expert, all experts."""

import numpy as np
import pytest

from moe_np.layers import sparse_layer
from moe_np.routing import (
    base_assignment,
    bias_balanced,
    capacity_top_k,
    contract,
    expert_choice,
    gshard,
    hashing,
    hierarchical,
    noisy_top_k,
    st_moe,
    strictly_balanced,
    switch,
    top_k,
    top_p,
)
from tests.support.chain import (
    KINDS,
    OUT,
    D,
    arrays,
    chain,
    close,
    every,
    learned,
    make_experts,
    naive,
    over,
    refused,
)
from tests.support.routers import CASES, Case, route, setup

pytestmark = pytest.mark.usefixtures("backend")

# --- the ends of the range ------------------------------------------------------------------------


@every
@pytest.mark.parametrize("n_tokens", [0, 1, 2])
def test_few_tokens(case, n_tokens):
    params, x = setup(case, n_tokens=n_tokens)
    expert_params = make_experts()
    if n_tokens == 1 and "cap" in case.options:
        words = "cap: wanted at least 4 for 4 experts that take 1 of 1 tokens, got 2"
        refused(case, params, x, words)
        return
    p = chain(case, params, expert_params, x, seed=3)
    close(p.out, naive(expert_params, x, p.routing))
    assert p.dx.shape == x.shape and all(np.isfinite(a).all() for a in arrays(p))
    if n_tokens == 0:
        assert all((g == 0).all() for g in [*p.grads.values(), *p.router.values()])


@every
def test_equal_tokens_and_experts_without_any(case):
    """The sum is right, and the gradient of an expert without tokens is exactly 0."""
    params, x = setup(case)
    expert_params = make_experts()
    x = np.repeat(x[:1], len(x), axis=0)
    p = chain(case, params, expert_params, x, seed=3)
    close(p.out, naive(expert_params, x, p.routing))
    assert all(np.isfinite(a).all() for a in arrays(p))
    idle = np.setdiff1d(np.arange(4), p.routing.expert)
    assert all((g[idle] == 0).all() for g in p.grads.values())
    if case.full and case.causal and not case.noisy and case.router is not hashing:
        assert len(idle) == 4 - len(p.routing.token) // len(x), "all tokens make one choice"


CHOICES = {"switch": (switch, 1), "gshard": (gshard, 2), "st_moe": (st_moe, 2)}
CHOICES["capacity_top_k"] = (capacity_top_k, 2)


@over(CHOICES)
@pytest.mark.parametrize("factor", [0.01, 0.5, 1.0, 3.9, 100.0])
def test_all_tokens_on_one_expert_under_capacity(case, factor):
    """The first C tokens have the expert, the others get exactly 0 from it."""
    router, k = case
    params, x = setup(Case(router, {}))
    expert_params = make_experts()
    x[:, 0] = 1
    params["w"][0] = [0, 50, 25, 0]  # every token demands expert 1, then expert 2
    options = {**router.EXAMPLE, "capacity_factor": factor}
    p = chain(Case(router, options), params, expert_params, x)
    C = contract.capacity(12, 4, k, factor)
    first = p.routing.token[p.routing.expert == 1]
    assert first.tolist() == list(range(min(C, 12)))
    dropped = np.setdiff1d(np.arange(12), p.routing.token)
    assert k > 1 or len(dropped) == max(0, 12 - C)
    assert (p.out[dropped] == 0).all()
    assert np.bincount(p.routing.expert, minlength=4).max() <= C
    close(p.out, naive(expert_params, x, p.routing))


@learned
@pytest.mark.parametrize("kind", KINDS)
def test_huge_logits(case, kind):
    params, x = setup(case)
    expert_params = make_experts(kind=kind)
    params = {name: 1e5 * a for name, a in params.items()}
    p = chain(case, params, expert_params, x, kind=kind, seed=3)
    assert all(np.isfinite(a).all() for a in arrays(p))


@every
def test_errata_11_ties_everywhere(case):
    """A gating network of zeros: the lowest experts, the same at every call, finite gradients."""
    params, x = setup(case)
    expert_params = make_experts()
    params = {name: np.zeros_like(a) for name, a in params.items()}
    p, p2 = (chain(case, params, expert_params, x) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(p), arrays(p2), strict=True))
    assert all(np.isfinite(a).all() for a in arrays(p))
    close(p.out, naive(expert_params, x, p.routing))
    if "k" in case.options and case.router is not strictly_balanced:
        lowest = np.arange(4) < case.options["k"]
        assert (p.routing.demand == lowest).all()


@every
def test_float32_beside_float64(case):
    params, x = setup(case)
    expert_params = make_experts()
    wide = chain(case, params, expert_params, x)
    params, expert_params = (
        {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in d.items()}
        for d in (params, expert_params)
    )
    narrow = chain(case, params, expert_params, x.astype(np.float32))
    assert np.array_equal(wide.routing.demand, narrow.routing.demand)
    for a, b in zip(arrays(narrow), arrays(wide), strict=True):
        assert a.dtype == np.float32 and b.dtype == np.float64
        close(a, b, rtol=1e-3, atol=1e-5 * max(1, np.abs(b).max(initial=0)))


@every
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_changed(case, kind):
    """Read-only inputs, and a second backward pass from the same caches with the same bits."""
    params, x = setup(case)
    expert_params = make_experts(kind=kind)
    for a in (x, *params.values(), *expert_params.values()):
        a.flags.writeable = False
    routing, router_cache = route(case, params, x, 3)
    for a in routing:
        if a is not None:
            a.flags.writeable = False
    out, cache = sparse_layer.forward(expert_params, x, routing, KINDS[kind])
    out.flags.writeable = False
    dx, grads, dweight = sparse_layer.backward(out, cache)
    dx2, grads2, dweight2 = sparse_layer.backward(out, cache)
    assert np.array_equal(dx, dx2) and np.array_equal(dweight, dweight2)
    assert all(np.array_equal(grads[name], grads2[name]) for name in expert_params)
    if case.router is not hashing:
        dweight.flags.writeable = False
        dx, grads = case.router.route_backward(dweight, None, router_cache)
        dx2, grads2 = case.router.route_backward(dweight, None, router_cache)
        assert np.array_equal(dx, dx2)
        assert all(np.array_equal(grads[name], grads2[name]) for name in params)


# --- limits ---------------------------------------------------------------------------------------

ONE_HASH = {**CASES["hashing"].options, "n_experts": 1}
ALONE = {name: c for name, c in CASES.items() if c.fewest == 1 and c.router is not hashing} | {
    "hashing": Case(hashing, ONE_HASH, {"vocabulary": 7}),
    "noisy_top_k": Case(noisy_top_k, {"k": 1}, noisy=True),
    "strictly_balanced": Case(strictly_balanced, {"k": 1, "training": True}),
    "hierarchical": Case(
        hierarchical, {"k_primary": 1, "k_secondary": 1, "renormalise": False}, {"groups": 1}
    ),
    "bias_balanced": Case(bias_balanced, {"k": 1, "renormalise": False, "routed_scale": 2.5}),
}


@over(ALONE)
@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_is_a_dense_layer(case, kind):
    """Outputs and gradients; where the weight is a softmax it is exactly 1, and the gradient of the
    router is exactly 0.
    """
    params, x = setup(case, n_experts=1)
    expert_params = make_experts(1, kind=kind)
    p = chain(case, params, expert_params, x, kind=kind)
    weight = p.routing.weight[:, None]
    assert p.routing.token.tolist() == list(range(len(x)))
    if case.router not in (base_assignment, bias_balanced):  # whose weight is a sigmoid
        assert (weight == 1).all() and all((g == 0).all() for g in p.router.values())
    y, cache = KINDS[kind].forward(expert_params, x, np.array([0, len(x)]))
    drows, grads = KINDS[kind].backward(weight * p.out, cache)
    close(p.out, weight * y)
    for name, g in grads.items():
        close(p.grads[name], g)
    if (weight == 1).all():
        close(p.dx, drows)


ALL = {
    "top_k": Case(top_k, {"k": 4, "renormalise": False}),
    "top_k renormalised": Case(top_k, {"k": 4, "renormalise": True}),
    "noisy_top_k": Case(noisy_top_k, {"k": 4}),
    "strictly_balanced": Case(strictly_balanced, {"k": 4, "training": True}),
    "expert_choice": Case(expert_choice, {"capacity_factor": 4.0}),
    "top_p": Case(top_p, {"p": 1.0}),
    "hierarchical": Case(hierarchical, {"k_primary": 2, "k_secondary": 2, "renormalise": True}),
    "gshard": Case(gshard, {}),
    "st_moe": Case(st_moe, {"threshold": 0.0}),
}


@over(ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_all_experts_are_the_dense_mixture(case, kind):
    """Σ_m softmax(x·w)_m expert_m(x), and its gradients; two levels are a product of softmaxes."""
    E = 2 if case.router in (gshard, st_moe) else 4
    rng = np.random.default_rng(4)
    w = rng.normal(size=(D, E))
    x = rng.normal(size=(12, D))
    expert_params = make_experts(E, kind=kind)
    params = {"w": w, "w_noise": rng.normal(size=(D, E)), "threshold": rng.uniform(size=E)}
    if case.router is hierarchical:  # the logits of the first level are 0
        params = {"w_primary": np.zeros((D, 2)), "w_secondary": w}
        halves = np.exp(x @ w).reshape(12, 2, 2)
        weights = (0.5 * halves / halves.sum(axis=2, keepdims=True)).reshape(12, 4)
    else:
        weights = np.exp(x @ w) / np.exp(x @ w).sum(axis=1, keepdims=True)
    p = chain(case, params, expert_params, x, kind=kind)
    assert len(p.routing.token) == 12 * E
    out = np.zeros((12, OUT))
    drows = np.zeros_like(x)
    dweights = np.zeros((12, E))
    for m in range(E):
        alone = {name: a[m : m + 1] for name, a in expert_params.items()}
        y, cache = KINDS[kind].forward(alone, x, np.array([0, 12]))
        out += weights[:, m : m + 1] * y
        dweights[:, m] = (p.out * y).sum(axis=1)
        back, grads = KINDS[kind].backward(weights[:, m : m + 1] * p.out, cache)
        drows += back
        for name, g in grads.items():
            close(p.grads[name][m], g[0])
    close(p.out, out)
    if case.router is not hierarchical:
        dlogits = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
        close(p.router["w"], x.T @ dlogits)
        close(p.dx, drows + dlogits @ w.T)


def test_dense_is_that_mixture_too():
    params, x = setup(CASES["dense"])
    expert_params = make_experts()
    dense = chain(CASES["dense"], params, expert_params, x)
    top = chain(ALL["top_k renormalised"], params, expert_params, x)
    close(dense.out, top.out)
    close(dense.dx, top.dx)
    for name, g in dense.router.items():
        close(g, top.router[name])
