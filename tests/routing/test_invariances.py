"""What must not matter to a router: the order of experts and tokens, a constant on all logits,
padding, the sizes.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moe_np.base.gradcheck import gradient_error
from moe_np.routing import (
    dense,
    gshard,
    hierarchical,
    noisy_top_k,
    st_moe,
    strictly_balanced,
    switch,
)

PADDED = {
    "noisy_top_k": (noisy_top_k, {"k": 2}),
    "strictly_balanced batch": (strictly_balanced, {"k": 2, "training": True}),
    "strictly_balanced threshold": (strictly_balanced, {"k": 2, "training": False}),
    "switch": (switch, {"capacity_factor": 0.8, "jitter": 0.1}),
    "gshard": (gshard, {"capacity_factor": 0.7}),
    "gshard code": (gshard, {"capacity_factor": 0.7, "variant": "code"}),
    "st_moe": (st_moe, {"capacity_factor": 0.7, "of": "pair", "second": "random"}),
}
UNLIMITED = {
    "dense": (dense, {}),
    "noisy_top_k": PADDED["noisy_top_k"],
    "strictly_balanced batch": PADDED["strictly_balanced batch"],
    "strictly_balanced threshold": PADDED["strictly_balanced threshold"],
    "switch": (switch, {}),
    "gshard": (gshard, {}),
    "st_moe": (st_moe, {}),
}
padded = pytest.mark.parametrize(("router", "options"), PADDED.values(), ids=PADDED.keys())
unlimited = pytest.mark.parametrize(("router", "options"), UNLIMITED.values(), ids=UNLIMITED.keys())


def problem(seed=0, N=15, D=4, E=5):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(D, E))}
    return params | {
        "w_noise": rng.normal(size=(D, E)),
        "threshold": rng.uniform(0, 0.4, E),
    }, rng.normal(size=(N, D))


def dense_weights(routing, shape):
    """The weights as a matrix, −1 where there is no row."""
    out = np.full(shape, -1.0)
    out[routing.token, routing.expert] = routing.weight
    return out


@unlimited
def test_permuting_experts(router, options):
    params, x = problem()
    order = np.random.default_rng(1).permutation(5)
    moved = {name: p[..., order] for name, p in params.items()}
    a = dense_weights(router.route(params, x, **options)[0], (15, 5))
    b = dense_weights(router.route(moved, x, **options)[0], (15, 5))
    np.testing.assert_allclose(b, a[:, order], rtol=1e-12)


@unlimited
def test_permuting_tokens(router, options):
    params, x = problem()
    order = np.random.default_rng(1).permutation(15)
    a = dense_weights(router.route(params, x, **options)[0], (15, 5))
    b = dense_weights(router.route(params, x[order], **options)[0], (15, 5))
    np.testing.assert_allclose(b, a[order], rtol=1e-12)


@padded
def test_errata_09_a_constant_on_all_logits_changes_nothing(router, options):
    params, x = problem()
    x = np.hstack([x, np.ones((15, 1))])
    both = []
    for constant in (0.0, -50.0):
        shifted = {
            n: np.vstack([p, np.full(5, constant)]) if n == "w" else p for n, p in params.items()
        }
        shifted["w_noise"] = np.vstack([params["w_noise"], np.zeros(5)])
        # jitter would multiply the constant
        rng = None if router is switch else np.random.default_rng(2)
        both.append(dense_weights(router.route(shifted, x, **options, rng=rng)[0], (15, 5)))
    np.testing.assert_allclose(both[0], both[1], rtol=1e-10)


@padded
@pytest.mark.parametrize("seed", range(6))
def test_padding_takes_no_place_and_changes_nothing(router, options, seed):
    params, x = problem(seed, N=20)
    rng = np.random.default_rng(seed)
    valid = rng.random(20) < 0.6
    rows = np.flatnonzero(valid)
    routing, cache = router.route(
        params, x, **options, valid=valid, rng=np.random.default_rng(seed)
    )
    alone, alone_cache = router.route(params, x[valid], **options, rng=np.random.default_rng(seed))
    assert np.array_equal(routing.token, rows[alone.token]) and np.array_equal(
        routing.expert, alone.expert
    )
    np.testing.assert_allclose(routing.weight, alone.weight, rtol=1e-12)
    assert not routing.demand[~valid].any() and np.array_equal(routing.demand[valid], alone.demand)
    dweight = rng.normal(size=len(routing.token))
    dx, grads = router.route_backward(dweight, None, cache)
    dx0, grads0 = router.route_backward(dweight, None, alone_cache)
    assert (dx[~valid] == 0).all()
    np.testing.assert_allclose(dx[valid], dx0, atol=1e-13)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads0[name], atol=1e-13)


@padded
def test_only_padding(router, options):
    params, x = problem()
    routing, cache = router.route(
        params, x, **options, valid=np.zeros(15, bool), rng=np.random.default_rng(0)
    )
    assert len(routing.token) == 0 and not routing.demand.any()
    dx, grads = router.route_backward(np.zeros(0), None, cache)
    assert (dx == 0).all() and all((g == 0).all() for g in grads.values())


def drawn(data, E):
    """A router with options that E experts allow: (module, params' start, options)."""
    k = data.draw(st.integers(2, E))
    factor = data.draw(st.sampled_from([None, 0.6, 1.0]))
    name = data.draw(
        st.sampled_from(["dense", "noisy", "batch", "switch", "gshard", "st_moe", "two levels"])
    )
    return {
        "dense": (dense, {}, {}),
        "noisy": (noisy_top_k, {"scale": 1.0}, {"k": k}),
        "batch": (strictly_balanced, {}, {"k": k, "training": True}),
        "switch": (switch, {"scale": 1.0}, {"capacity_factor": factor, "jitter": 0.05}),
        "gshard": (gshard, {}, {"capacity_factor": factor}),
        "st_moe": (st_moe, {}, {"capacity_factor": factor, "second": "random"}),
        "two levels": (
            hierarchical,
            {"groups": 2 if E % 2 == 0 else E},
            {"k_primary": 2, "k_secondary": 1, "renormalise": False},
        ),
    }[name]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 7), st.integers(1, 4), st.integers(2, 6), st.data())
def test_gradient_over_shapes(seed, N, D, E, data):
    router, start, options = drawn(data, E)
    rng = np.random.default_rng(seed)
    params, x = router.init(rng, D, E, **start), rng.normal(size=(N, D))
    routing, cache = router.route(params, x, **options, rng=np.random.default_rng(seed))
    dweight, dlogits = rng.normal(size=len(routing.token)), rng.normal(size=(N, E))
    changed = []

    def loss(p):
        inner = {name: p[name] for name in params}
        moved, _ = router.route(inner, p["x"], **options, rng=np.random.default_rng(seed))
        if not (
            np.array_equal(moved.token, routing.token)
            and np.array_equal(moved.expert, routing.expert)
        ):
            changed.append(True)
            return 0.0
        return (moved.weight * dweight).sum() + (moved.logits * dlogits).sum()

    dx, grads = router.route_backward(dweight, dlogits, cache)
    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, rng, step=1e-4)
    assume(not changed)  # a tie within reach of the difference
    assert max(errors.values()) < 1e-7, errors
