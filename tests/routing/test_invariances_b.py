"""What must not matter to expert choice, k-means, BASE, top-p, bias-balanced: order, padding,
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
    expert_choice,
    gradient_estimators,
    kmeans,
    top_p,
)

EXPERT_AXIS = {"w": 1, "bias": 0, "centroids": 0}
ROUTERS = {
    "expert_choice": (expert_choice, {"capacity_factor": 1.7}),
    "expert_choice capped": (expert_choice, {"capacity_factor": 1.4, "cap": 2}),
    "expert_choice dykstra": (
        expert_choice,
        {"capacity_factor": 1.4, "cap": 2, "solver": "dykstra"},
    ),
    "kmeans one": (kmeans, {"k": 2, "weights": "one"}),
    "kmeans softmax": (kmeans, {"k": 2, "weights": "softmax", "temperature": 3.0}),
    "base balanced": (base_assignment, {"training": True}),
    "base greedy": (base_assignment, {"training": False}),
    "top_p": (top_p, {"p": 0.6}),
    "bias_balanced": (bias_balanced, {"k": 2, "renormalise": True}),
    "straight_through": (gradient_estimators, {"estimator": "straight_through"}),
}
PADDED = {name: ROUTERS[name] for name in ROUTERS if name.startswith(("expert_choice", "base"))}
every = pytest.mark.parametrize(("router", "options"), ROUTERS.values(), ids=ROUTERS.keys())
padded = pytest.mark.parametrize(("router", "options"), PADDED.values(), ids=PADDED.keys())


def problem(router, seed=0, N=15, D=4, E=5):
    rng = np.random.default_rng(seed)
    params = {k: p + 0.3 * rng.normal(size=p.shape) for k, p in router.init(rng, D, E).items()}
    return params, rng.normal(size=(N, D))


def dense_weights(routing, shape=(15, 5)):
    """The weights as a matrix, −1 where there is no row."""
    out = np.full(shape, -1.0)
    out[routing.token, routing.expert] = routing.weight
    return out


@every
@pytest.mark.parametrize("seed", range(3))
def test_permuting_experts_and_tokens(router, options, seed):
    params, x = problem(router, seed)
    rng = np.random.default_rng(seed + 10)
    experts, tokens = rng.permutation(5), rng.permutation(15)
    moved = {name: np.take(p, experts, axis=EXPERT_AXIS[name]) for name, p in params.items()}
    a = dense_weights(router.route(params, x, **options)[0])
    np.testing.assert_allclose(
        dense_weights(router.route(moved, x, **options)[0]), a[:, experts], rtol=1e-10
    )
    np.testing.assert_allclose(
        dense_weights(router.route(params, x[tokens], **options)[0]), a[tokens], rtol=1e-10
    )


@every
def test_rows_are_listed_token_by_token_the_best_choice_first(router, options):
    routing, _ = router.route(*problem(router), **options)
    assert (np.diff(routing.token) >= 0).all()
    if router is not bias_balanced:  # there the bias has its say in what is best
        falls = np.diff(routing.probs[routing.token, routing.expert]) <= 0
        assert falls[np.diff(routing.token) == 0].all()


@padded
@pytest.mark.parametrize("seed", range(6))
def test_padding_takes_no_place_and_changes_nothing(router, options, seed):
    params, x = problem(router, seed, N=20)
    rng = np.random.default_rng(seed)
    valid = rng.random(20) < 0.6
    routing, cache = router.route(params, x, **options, valid=valid)
    alone, alone_cache = router.route(params, x[valid], **options)
    assert np.array_equal(routing.token, np.flatnonzero(valid)[alone.token])
    assert np.array_equal(routing.expert, alone.expert)
    np.testing.assert_allclose(routing.weight, alone.weight, rtol=1e-12)
    assert not routing.demand[~valid].any() and np.array_equal(routing.demand[valid], alone.demand)
    dweight = rng.normal(size=len(routing.token))
    dx, grads = router.route_backward(dweight, None, cache)
    dx0, grads0 = router.route_backward(dweight, None, alone_cache)
    assert (dx[~valid] == 0).all()
    np.testing.assert_allclose(dx[valid], dx0, atol=1e-13)
    np.testing.assert_allclose(grads["w"], grads0["w"], atol=1e-13)


@padded
def test_only_padding(router, options):
    params, x = problem(router)
    routing, cache = router.route(params, x, **options, valid=np.zeros(15, bool))
    assert len(routing.token) == 0 and not routing.demand.any()
    dx, grads = router.route_backward(np.zeros(0), None, cache)
    assert (dx == 0).all() and (grads["w"] == 0).all()


@every
@pytest.mark.parametrize(("N", "E"), [(1, 5), (3, 5), (15, 2)])
def test_few_tokens_and_few_experts(router, options, N, E):
    params, x = problem(router, N=N, E=E)
    if "cap" in options and N < E:
        options = {**options, "cap": E}
    routing, cache = router.route(params, x, **options)
    dx, _ = router.route_backward(np.ones(len(routing.token)), np.ones((N, E)), cache)
    assert (
        np.isfinite(routing.weight).all()
        and np.isfinite(dx).all()
        and routing.probs.shape == (N, E)
    )


def drawn(data, E):
    """A router with options that E experts allow."""
    k = data.draw(st.integers(2, E))
    name = data.draw(
        st.sampled_from(["choice", "capped", "means", "base", "top_p", "bias", "groups"])
    )
    renormalise = data.draw(st.booleans())
    return {
        "choice": (expert_choice, {"capacity_factor": data.draw(st.sampled_from([0.5, 1.0, 2.3]))}),
        "capped": (expert_choice, {"capacity_factor": 1.0, "cap": E}),
        "means": (
            kmeans,
            {"k": k, "weights": "softmax", "renormalise": renormalise, "temperature": 2.5},
        ),
        "base": (base_assignment, {"training": renormalise}),
        "top_p": (top_p, {"p": data.draw(st.sampled_from([0.2, 0.6, 0.9]))}),
        "bias": (bias_balanced, {"k": k, "renormalise": renormalise, "routed_scale": 1.5}),
        "groups": (
            bias_balanced,
            {
                "k": 2,
                "renormalise": renormalise,
                "n_group": E // 2 if E % 2 == 0 else 1,
                "topk_group": 1,
            },
        ),
    }[name]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 7), st.integers(1, 4), st.integers(2, 6), st.data())
def test_gradient_over_shapes(seed, N, D, E, data):
    router, options = drawn(data, E)
    rng = np.random.default_rng(seed)
    params, x = problem(router, seed, N, D, E)
    routing, cache = router.route(params, x, **options)
    dweight, dlogits = rng.normal(size=len(routing.token)), rng.normal(size=(N, E))
    changed = []

    def loss(p):
        moved, _ = router.route({name: p[name] for name in params}, p["x"], **options)
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
