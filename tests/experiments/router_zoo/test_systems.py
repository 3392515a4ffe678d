"""The systems of the router zoo: losses and gradients of each, routers in groups, and who joins."""

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.experiments.router_zoo import systems
from moe_np.experiments.router_zoo.systems import SETUPS, TABLE, InGroups
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Forward
from moe_np.routing import base_assignment, expert_choice, gradient_estimators, routers
from tests.support.memory import small_memory

TRUE_GRADIENT = [
    name for name in SETUPS if name not in ("straight-through", "REINFORCE", "soft mixture")
]


@pytest.mark.parametrize("name", TRUE_GRADIENT)
def test_the_gradient_of_a_whole_step(name):
    """Task and load-balancing losses together, through layer, router and values, on one scale
    (errata 16).
    """
    setup = SETUPS[name]
    if name == "strictly balanced":  # its loss is for the thresholds alone, not for the whole
        setup = setup._replace(losses=None)
    params, x, y, ids = small_memory(setup)

    def forward(params):
        return associative_memory.gradients(setup, params, x, y, ids, np.random.default_rng(1))

    def loss(part, moved):
        result = forward({**params, part: {**params[part], **moved}})
        assert np.array_equal(result.routing.expert, routing.expert), "a tie"
        return result.token_loss.mean() + result.balance

    grads, _, _, routing = forward(params)
    for part, gradients in grads.items():
        names = [k for k in gradients if k not in ("threshold", "bias")]  # none, by definition
        errors = gradient_error(
            lambda p, part=part: loss(part, p),
            {k: params[part][k] for k in names},
            {k: gradients[k] for k in names},
            np.random.default_rng(2),
            step=2e-5 if part == "experts" else 1e-4,
        )
        assert max(errors.values(), default=0) < 1e-7, (part, errors)


def test_the_threshold_loss_is_a_mean_and_reaches_the_thresholds_alone():
    setup = SETUPS["strictly balanced"]
    params, x, y, ids = small_memory(setup)
    with_loss, without = (
        associative_memory.gradients(s, params, x, y, ids, None).grads["router"]
        for s in (setup, setup._replace(losses=None))
    )
    assert np.array_equal(with_loss["w"], without["w"])
    routing, _ = setup.router.route(params["router"], x, **setup.options, training=True)
    above = (routing.probs > params["router"]["threshold"]).sum(axis=0)
    wanted = (routing.demand.sum(axis=0) - above) / len(x)
    np.testing.assert_allclose(with_loss["threshold"], wanted, atol=1e-14)
    assert wanted.any()


def test_the_baseline_of_reinforce_leaves_out_the_token_itself():
    setup = SETUPS["REINFORCE"]
    params, x, _, ids = small_memory(setup)
    rng = np.random.default_rng(0)
    routing, cache = gradient_estimators.route(params["router"], x, **setup.options, rng=rng)
    loss = np.random.default_rng(1).random(len(ids))
    (coefficient, reinforce), _ = setup.losses(Forward(routing, cache, loss))
    baseline = np.array([np.delete(loss, n).mean() for n in ids])
    expected = ((loss - baseline) / len(ids))[:, None] * (routing.demand - routing.probs)
    np.testing.assert_allclose(coefficient * reinforce.dlogits, expected, rtol=1e-12)
    assert reinforce.value == 0


# --- a router in groups ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 5, 12, 17])
def test_groups_are_routed_by_themselves(n):
    rng = np.random.default_rng(n)
    grouped = InGroups(base_assignment, 6)
    params, x = grouped.init(rng, 5, 3), rng.normal(size=(n, 5))
    routing, cache = grouped.route(params, x, training=True)
    dweight, dlogits = rng.normal(size=len(routing.token)), rng.normal(size=(n, 3))
    dx, grads = grouped.route_backward(dweight, dlogits, cache)
    assert routing.demand.shape == (n, 3) and sorted(routing.token) == list(range(n))
    total = np.zeros((5, 3))
    for i in range(0, n, 6):
        alone, alone_cache = base_assignment.route(params, x[i : i + 6], training=True)
        rows = (routing.token >= i) & (routing.token < i + 6)
        assert np.array_equal(routing.expert[rows], alone.expert)
        assert np.array_equal(routing.token[rows] - i, alone.token)
        alone_dx, alone_grads = base_assignment.route_backward(
            dweight[rows], dlogits[i : i + 6], alone_cache
        )
        np.testing.assert_allclose(dx[i : i + 6], alone_dx)
        total = total + alone_grads["w"]
    np.testing.assert_allclose(grads["w"], total, atol=1e-12)


def test_padding_is_left_out_of_every_group():
    rng = np.random.default_rng(0)
    grouped = InGroups(base_assignment, 4)
    params, x = grouped.init(rng, 5, 2), rng.normal(size=(8, 5))
    valid = np.arange(8) % 4 != 3
    routing, _ = grouped.route(params, x, valid=valid, training=True)
    assert sorted(routing.token) == [0, 1, 2, 4, 5, 6]


def test_each_group_is_chosen_from_by_itself():
    grouped = InGroups(expert_choice, 4)
    rng = np.random.default_rng(0)
    params, x = grouped.init(rng, 5, 2), rng.normal(size=(8, 5))
    routing, cache = grouped.route(params, x, capacity_factor=1.0)
    assert np.bincount(routing.expert, minlength=2).tolist() == [4, 4]
    dx, _ = grouped.route_backward(np.ones(len(routing.token)), None, cache)
    assert dx.shape == x.shape


# --- who joins ------------------------------------------------------------------------------------


def test_every_router_of_the_package_is_in_the_zoo():
    modules = [
        setup.router.router if isinstance(setup.router, InGroups) else setup.router
        for setup in SETUPS.values()
    ]
    assert all(router in modules for router in routers().values())


def test_a_router_that_the_table_does_not_name_joins_with_its_example():
    smaller = {name: setup for name, setup in TABLE.items() if name not in ("top-p", "hash")}
    setups = systems.with_all_routers(smaller, routers())
    assert list(setups) == [*smaller, "biased_top_k", "capacity_top_k", "hashing", "top_p"]
    joined = setups["top_p"]
    assert joined.options == joined.router.EXAMPLE
    params, x, y, ids = small_memory(joined)
    step = associative_memory.train_step(joined, params, None, x, y, ids, lr=0.1, rng=None)
    assert step.balance > 0, "Switch's loss, since it has logits"
    assert systems.switch_loss_of_logits(Forward(step.routing._replace(logits=None), None, x)) == []
