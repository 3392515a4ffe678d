"""What must not matter to a router: the order of experts and tokens, a constant on all logits, the
sizes.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moe_np.base.gradcheck import gradient_error
from moe_np.routing import (
    base_assignment,
    bias_balanced,
    capacity_top_k,
    dense,
    expert_choice,
    gradient_estimators,
    gshard,
    hashing,
    hierarchical,
    kmeans,
    noisy_top_k,
    st_moe,
    strictly_balanced,
    switch,
    top_k,
    top_p,
)
from tests.support.routers import CASES, route, setup


def over(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def weight_table(routing):
    """The weights as a table, −1 where there is no row."""
    out = np.full(routing.probs.shape, -1.0)
    out[routing.token, routing.expert] = routing.weight
    return out


# experts have a place in a tree, in groups, or a number in a hash table
PLACED = {n for n, c in CASES.items() if c.router in (hierarchical, hashing)}
NAMELESS = {n: c for n, c in CASES.items() if n not in PLACED | {"bias_balanced groups"}}
# an expert takes its first C tokens; a hash does not look at x
IN_ORDER = {n for n, c in CASES.items() if c.router is hashing} | {
    n for n, c in CASES.items() if "capacity_factor" in c.options and c.router is not expert_choice
}
UNORDERED = {n: c for n, c in CASES.items() if n not in IN_ORDER}


@over(NAMELESS)
@pytest.mark.parametrize("seed", range(3))
def test_permuting_experts(case, seed):
    params, x = setup(case, seed)
    order = np.random.default_rng(seed + 10).permutation(4)
    moved = {name: np.take(p, order, axis=p.shape.index(4)) for name, p in params.items()}
    first = weight_table(route(case, params, x)[0])
    second = weight_table(route(case, moved, x)[0])
    np.testing.assert_allclose(second, first[:, order], rtol=1e-10)


@over(UNORDERED)
@pytest.mark.parametrize("seed", range(3))
def test_permuting_tokens(case, seed):
    params, x = setup(case, seed)
    order = np.random.default_rng(seed + 10).permutation(12)
    first = weight_table(route(case, params, x)[0])
    second = weight_table(route(case, params, x[order])[0])
    np.testing.assert_allclose(second, first[order], rtol=1e-10)


SOFTMAX = (dense, top_k, noisy_top_k, strictly_balanced, switch, gshard, st_moe, expert_choice)
SOFTMAX += (top_p, gradient_estimators, capacity_top_k)


# jitter would multiply the constant
@over({n: c for n, c in CASES.items() if c.router in SOFTMAX and "jitter" not in c.options})
def test_errata_09_a_constant_on_all_logits_changes_nothing(case):
    params, x = setup(case)
    x = np.hstack([x, np.ones((12, 1))])
    both = []
    for constant in (0.0, -50.0):
        last_row = {"w": np.full(4, constant), "w_noise": np.zeros(4)}
        shifted = {n: np.vstack([p, last_row[n]]) if p.ndim == 2 else p for n, p in params.items()}
        both.append(weight_table(route(case, shifted, x, 2)[0]))
    np.testing.assert_allclose(both[0], both[1], rtol=1e-10)


@over({n: c for n, c in CASES.items() if c.router not in (bias_balanced, hierarchical, hashing)})
def test_of_a_token_s_rows_the_most_probable_expert_comes_first(case):
    """But for a bias, which has a say in what is best, and the order of a tree."""
    routing, _ = route(case, *setup(case))
    if case.router in (dense, strictly_balanced):  # listed by the index of the expert
        return
    falls = np.diff(routing.probs[routing.token, routing.expert]) <= 0
    assert falls[np.diff(routing.token) == 0].all()


@over({n: c for n, c in CASES.items() if c.learned})
@pytest.mark.parametrize(("N", "E"), [(1, 5), (3, 5), (15, 2)])
def test_few_tokens_and_few_experts(case, N, E):
    groups = case.router is hierarchical or "n_group" in case.options
    if case.fewest > E or (groups and E % 2):
        E = 4 + 2 * (E % 2)
    if "cap" in case.options and N < E:
        case = case._replace(options={**case.options, "cap": E})
    params, x = setup(case, n_tokens=N, n_experts=E)
    routing, cache = route(case, params, x, 1)
    dx, _ = case.router.route_backward(np.ones(len(routing.token)), np.ones((N, E)), cache)
    assert np.isfinite(routing.weight).all() and np.isfinite(dx).all()
    assert routing.probs.shape == (N, E)


# --- the gradient over shapes ---------------------------------------------------------------------


def drawn(data, E):
    """A router with options that E experts allow: (module, options of init, of route)."""
    k = data.draw(st.integers(2, E))
    factor = data.draw(st.sampled_from([None, 0.6, 1.0]))
    p = data.draw(st.sampled_from([0.2, 0.6, 0.9]))
    renormalise = data.draw(st.booleans())
    top = {"k": k, "renormalise": renormalise}
    groups = {"n_group": E // 2 if E % 2 == 0 else 1, "topk_group": 1}
    soft = {"weights": "softmax", "temperature": 2.5}
    two_levels = {"k_primary": 2, "k_secondary": 1, "renormalise": False}
    cases = (
        (dense, {}, {}),
        (top_k, {}, top),
        (capacity_top_k, {}, {**top, "capacity_factor": factor}),
        (noisy_top_k, {"scale": 1.0}, {"k": k}),
        (strictly_balanced, {}, {"k": k}),
        (switch, {"scale": 1.0}, {"capacity_factor": factor, "jitter": 0.05}),
        (gshard, {}, {"capacity_factor": factor}),
        (st_moe, {}, {"capacity_factor": factor, "second": "random"}),
        (hierarchical, {"groups": 2 if E % 2 == 0 else E}, two_levels),
        (expert_choice, {}, {"capacity_factor": {None: 2.3}.get(factor, factor)}),
        (expert_choice, {}, {"capacity_factor": 1.0, "cap": E}),
        (kmeans, {}, {**top, **soft}),
        (base_assignment, {}, {"training": renormalise}),
        (top_p, {}, {"p": p}),
        (bias_balanced, {}, {**top, "routed_scale": 1.5}),
        (bias_balanced, {}, {**groups, "k": 2, "renormalise": renormalise}),
    )
    return data.draw(st.sampled_from(cases))


@pytest.mark.seconds
@settings(max_examples=140, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 7), st.integers(1, 4), st.integers(2, 6), st.data())
def test_gradient_over_shapes(seed, N, D, E, data):
    router, init, options = drawn(data, E)
    rng = np.random.default_rng(seed)
    params = {
        name: p + 0.3 * rng.normal(size=p.shape)
        for name, p in router.init(rng, D, E, **init).items()
    }
    x = rng.normal(size=(N, D))
    valid = data.draw(st.sampled_from([None, rng.random(N) < 0.7]))

    def routed(params, x):
        noise = np.random.default_rng(seed)
        return router.route(params, x, **options, valid=valid, rng=noise)

    routing, cache = routed(params, x)
    dweight = rng.normal(size=len(routing.token))
    dlogits = rng.normal(size=(N, E))
    counted = dlogits if valid is None else dlogits * valid[:, None]
    changed = []

    def loss(p):
        moved, _ = routed({name: p[name] for name in params}, p["x"])
        same = (
            np.array_equal(moved.token, routing.token),
            np.array_equal(moved.expert, routing.expert),
        )
        if not all(same):
            changed.append(True)
            return 0.0
        return (moved.weight * dweight).sum() + (moved.logits * counted).sum()

    dx, grads = router.route_backward(dweight, dlogits, cache)
    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, rng, step=1e-4)
    assume(not changed)  # a tie within reach of the difference
    assert max(errors.values()) < 1e-7, errors
