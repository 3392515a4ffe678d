"""The associative memory around one sparse layer: task, values, training, measures."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.layers import balance, diagnostics
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Forward, RouterSetup, TrainStep
from moe_np.routing import base_assignment, bias_balanced, hashing, st_moe, strictly_balanced, top_k
from tests.support.memory import small_memory

TOP_2 = {"k": 2, "renormalise": True}


def switch_loss(forward):
    return [(0.01, balance.switch(forward.routing))]


def test_keys_and_labels():
    a, b = (
        associative_memory.associations(np.random.default_rng(3), 4000, 8, 5, common=common)
        for common in (0.0, 2.0)
    )
    assert a[0].dtype == np.float32 and a[0].shape == (4000, 8) and np.array_equal(a[1], b[1])
    assert set(a[1]) == set(range(5))
    shift = (b[0] - a[0]).astype(float)
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), 2, rtol=1e-5)
    np.testing.assert_allclose(shift, shift[:1].repeat(4000, axis=0), atol=1e-5)
    assert np.linalg.norm(a[0].mean(axis=0)) < 0.15


def test_keys_have_nothing_in_common_unless_asked_for():
    first, zero = (
        associative_memory.associations(np.random.default_rng(3), 40, 8, 5, **options)[0]
        for options in ({}, {"common": 0.0})
    )
    assert np.array_equal(first, zero)


def test_values_gradient():
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=7)
    params = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    h = rng.normal(size=(7, 3))

    def forward(p, h):
        return associative_memory.values_forward(p, h, y)

    errors = pair_error(forward, associative_memory.values_backward, params, h, rng)
    assert max(errors.values()) < 1e-7, errors


def test_nothing_is_changed_and_every_step_improves_on_one_batch():
    setup = RouterSetup(top_k, TOP_2, losses=switch_loss)
    params, x, y, ids = small_memory(setup)
    for part in params.values():
        for p in part.values():
            p.flags.writeable = False
    x.flags.writeable = False
    state, losses, rng = None, [], np.random.default_rng(0)
    for _ in range(40):
        step = associative_memory.train_step(setup, params, state, x, y, ids, lr=0.02, rng=rng)
        params, state = step.params, step.state
        losses.append(step.loss)
    assert losses[-1] < 0.5 * losses[0]
    assert [adam.t for adam in state.values()] == [40] * 3  # Adam's means go on


def test_every_router_gets_the_same_minibatches():
    keys, labels = associative_memory.associations(np.random.default_rng(0), 32, 4, 3)
    minibatches = {}

    def recorder(name, draws):
        def step(setup, params, state, x, y, ids, *, lr, rng):
            rng.random(draws)
            minibatches.setdefault(name, []).append((ids.tolist(), lr))
            return TrainStep(params, state, 0.0, 0.0, None)

        return step

    for name, draws in (("a", 0), ("b", 7)):
        options = {"epochs": 3, "batch": 10, "lr": 1.0, "rng": np.random.default_rng(5)}
        options["step"] = recorder(name, draws)
        steps = associative_memory.train(RouterSetup(None), {}, keys, labels, **options)
        assert len(list(steps)) == 9
    assert minibatches["a"] == minibatches["b"]
    assert [lr for _, lr in minibatches["a"]] == pytest.approx([1 - n / 9 for n in range(9)])
    assert all(len(set(ids)) == 10 for ids, _ in minibatches["a"])


def test_a_batch_larger_than_the_memory_is_refused():
    keys, labels = associative_memory.associations(np.random.default_rng(0), 8, 4, 3)
    options = {"epochs": 1, "batch": 9, "lr": 1.0, "rng": np.random.default_rng(0)}
    with pytest.raises(InputError, match="batch: wanted at most the 8 keys there are, got 9"):
        next(associative_memory.train(RouterSetup(top_k), {}, keys, labels, **options))


def test_what_has_no_gradient_moves_only_as_it_should():
    def random_table(rng, keys, n_experts):
        return hashing.init(rng, keys.shape[1], n_experts, vocabulary=len(keys))

    table = RouterSetup(hashing, init_from_keys=random_table, token_ids=True)
    bias = RouterSetup(bias_balanced, TOP_2, after_step=bias_balanced.update_bias)
    params, x, y, ids = small_memory(table)
    step = associative_memory.train_step(table, params, None, x, y, ids, lr=0.1, rng=None)
    assert np.array_equal(step.params["router"]["table"], params["router"]["table"])
    params, x, y, ids = small_memory(bias)
    step = associative_memory.train_step(bias, params, None, x, y, ids, lr=0.1, rng=None)
    moved = step.params["router"]["bias"] - params["router"]["bias"]
    count = diagnostics.demand(step.routing)
    np.testing.assert_allclose(moved, 1e-3 * np.sign(count.mean() - count), atol=1e-12)


def test_gradients_are_those_of_training():
    """A router that balances in training only gives every expert the same number of tokens."""
    setup = RouterSetup(base_assignment)
    params, x, y, ids = small_memory(setup, n_experts=4)
    rng = np.random.default_rng(0)
    routing = associative_memory.gradients(setup, params, x, y, ids, rng).routing
    assert np.bincount(routing.expert).tolist() == [10] * 4


def test_losses_reach_the_gradients_with_their_coefficients():
    def losses(forward):
        return [(0.3, balance.switch(forward.routing)), (0.2, balance.z_loss(forward.routing))]

    setups = [RouterSetup(st_moe), RouterSetup(st_moe, losses=losses)]
    params, x, y, ids = small_memory(setups[0])
    without, added = (
        associative_memory.gradients(setup, params, x, y, ids, np.random.default_rng(1))
        for setup in setups
    )
    routing, cache = st_moe.route(params["router"], x, rng=np.random.default_rng(1))
    pairs = losses(Forward(routing, cache, added.token_loss))
    assert without.balance == 0
    assert added.balance == pytest.approx(sum(c * loss.value for c, loss in pairs))
    dlogits = sum(c * loss.dlogits for c, loss in pairs)
    _, drouter = st_moe.route_backward(np.zeros_like(routing.weight), dlogits, cache)
    difference = added.grads["router"]["w"] - without.grads["router"]["w"]
    np.testing.assert_allclose(difference, drouter["w"], atol=1e-14)
    assert np.abs(difference).max() > 1e-3
    for name, gradient in without.grads["experts"].items():
        assert np.array_equal(gradient, added.grads["experts"][name])


def test_the_gradient_of_a_loss_of_the_weights_is_added_to_that_of_the_task():
    def losses(forward):
        return [(0.3, balance.importance(forward.routing))]

    setups = [RouterSetup(top_k, TOP_2), RouterSetup(top_k, TOP_2, losses=losses)]
    params, x, y, ids = small_memory(setups[0])
    without, added = (
        associative_memory.gradients(setup, params, x, y, ids, None) for setup in setups
    )
    routing, cache = top_k.route(params["router"], x, **TOP_2)
    _, drouter = top_k.route_backward(0.3 * balance.importance(routing).dweight, None, cache)
    difference = added.grads["router"]["w"] - without.grads["router"]["w"]
    np.testing.assert_allclose(difference, drouter["w"], atol=1e-14)
    assert np.abs(difference).max() > 1e-3


def test_the_gradient_of_thresholds_is_that_of_their_loss():
    def losses(forward):
        return [(0.5, strictly_balanced.threshold_loss(forward.cache))]

    setup = RouterSetup(strictly_balanced, {"k": 2}, losses=losses)
    params, x, y, ids = small_memory(setup, n_experts=4)
    rng = np.random.default_rng(0)
    grads = associative_memory.gradients(setup, params, x, y, ids, rng).grads
    _, cache = strictly_balanced.route(params["router"], x, k=2, training=True)
    dthreshold = strictly_balanced.threshold_loss(cache).dthreshold
    assert dthreshold.any()
    np.testing.assert_array_equal(grads["router"]["threshold"], 0.5 * dthreshold)


def test_the_perplexity_is_that_of_the_loss_in_training():
    setup = RouterSetup(top_k, TOP_2)
    params, x, y, ids = small_memory(setup)
    step = associative_memory.train_step(setup, params, None, x, y, ids, lr=0.02, rng=None)
    measured = associative_memory.measure(setup, params, x, y, batch=len(x))
    assert measured["perplexity"] == pytest.approx(np.exp(step.loss), rel=1e-6)


def test_measure_by_hand():
    setup = RouterSetup(top_k, {"k": 1, "renormalise": False})
    params, x, y, _ = small_memory(setup, n_experts=4)
    params["values"] = {k: 0 * p for k, p in params["values"].items()}
    params["router"]["w"] = np.eye(6)[:, :4] * 50
    measured = associative_memory.measure(setup, params, x, y, batch=16)  # the last one is shorter
    assert measured["perplexity"] == pytest.approx(5)
    parts = [np.bincount(x[i : i + 16, :4].argmax(axis=1), minlength=4) for i in (0, 16, 32)]
    assert measured["cv"] == pytest.approx(np.mean([p.std() / p.mean() for p in parts]))
    assert measured["max_mean"] == pytest.approx(np.mean([p.max() / p.mean() for p in parts]))
    assert measured["experts"] == 1 and measured["dropped"] == measured["unserved"] == 0
