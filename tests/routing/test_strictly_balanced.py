"""Strictly balanced gating: the batchwise mask, the threshold mask, the loss between them."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.routing import strictly_balanced
from tests.support.routers import Case

CASES = {
    "strictly_balanced batch": Case(
        strictly_balanced, {"k": 2, "training": True}, causal=False, full=False, fewest=2
    ),
    "strictly_balanced threshold": Case(
        strictly_balanced, {"k": 2, "training": False}, full=False, fewest=2
    ),
}


def problem(seed=0, N=12, D=4, E=4):
    rng = np.random.default_rng(seed)
    return strictly_balanced.init(rng, D, E, scale=2.0), rng.normal(size=(N, D))


def test_hand_worked():
    probs = np.array([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    params = {"w": np.eye(2), "threshold": np.array([0.65, 0.35])}
    # each expert takes m = 1·4/2 = 2 tokens: expert 0 the third and the first, expert 1 the fourth
    # and the second
    routing, _ = strictly_balanced.route(params, np.log(probs), k=1, training=True)
    assert list(zip(routing.token, routing.expert, strict=True)) == [(0, 0), (1, 1), (2, 0), (3, 1)]
    np.testing.assert_allclose(routing.weight, 1)
    # above .65: tokens 0 and 2; above .35: tokens 1 and 3
    by_threshold, _ = strictly_balanced.route(params, np.log(probs), k=1, training=False)
    assert np.array_equal(by_threshold.demand, routing.demand)
    # m = 2·4/2 = 4: everything is kept, with the softmax itself as weight
    routing, _ = strictly_balanced.route(params, np.log(probs), k=2, training=True)
    np.testing.assert_allclose(routing.weight, probs.ravel(), rtol=1e-12)


@pytest.mark.parametrize(
    ("N", "k", "m"), [(12, 1, 3), (12, 2, 6), (7, 2, 4), (1, 1, 1), (12, 4, 12)]
)
def test_every_expert_takes_its_m_most_probable_tokens(N, k, m):
    params, x = problem(N=N)
    routing, _ = strictly_balanced.route(params, x, k=k, training=True)
    assert np.bincount(routing.expert, minlength=4).tolist() == [m] * 4
    probs = numerics.softmax(x @ params["w"])
    for i in range(4):
        assert set(routing.token[routing.expert == i]) == set(np.argsort(-probs[:, i])[:m])
    kept = np.where(routing.demand, probs, 0)
    expected = kept[routing.token, routing.expert] / kept.sum(axis=1)[routing.token]
    np.testing.assert_allclose(routing.weight, expected, rtol=1e-12)


def test_a_token_that_no_expert_takes_has_no_row_and_no_gradient():
    x = np.log([[0.9, 0.5], [0.8, 0.4], [0.5, 0.9], [0.4, 0.8], [0.5, 0.5], [0.5, 0.5]])
    params = {"w": np.eye(2) * 3, "threshold": np.array([0.6, 0.6])}
    for mask in ("batch", "threshold"):
        routing, cache = strictly_balanced.route(
            params, x[:5] if mask == "batch" else x, k=1, training=mask == "batch"
        )
        without = np.setdiff1d(np.arange(len(cache.x)), routing.token)
        if mask == "threshold":
            assert without.tolist() == [4, 5]
        dx, _ = strictly_balanced.route_backward(np.ones(len(routing.token)), None, cache)
        assert np.isfinite(dx).all() and (dx[without] == 0).all()


def test_errata_11_a_tie_goes_to_the_earlier_token():
    routing, _ = strictly_balanced.route(
        {"w": np.zeros((3, 2)), "threshold": np.zeros(2)}, np.ones((400, 3)), k=1, training=True
    )
    assert routing.token.tolist() == np.repeat(np.arange(200), 2).tolist()
    level = np.random.default_rng(0).integers(0, 3, 400)  # many ties, out of order
    params = {"w": np.array([[1.0, 0.0]]), "threshold": np.zeros(2)}
    routing, _ = strictly_balanced.route(params, level[:, None].astype(float), k=1, training=True)
    assert set(routing.token[routing.expert == 0]) == set(
        sorted(range(400), key=lambda n: (-level[n], n))[:200]
    )
    assert set(routing.token[routing.expert == 1]) == set(
        sorted(range(400), key=lambda n: (level[n], n))[:200]
    )


def test_probabilities_that_underflow_are_still_ranked():
    """Both probabilities of expert 1 are 0 in float64; the larger logit wins all the same."""
    logits = np.array([[2000.0, 0.0], [1900.0, 0.0], [1950.0, 1.0], [1999.0, 0.0]])
    routing, _ = strictly_balanced.route(
        {"w": np.eye(2), "threshold": np.zeros(2)}, logits, k=1, training=True
    )
    assert routing.token[routing.expert == 1].tolist() == [1, 2]


def test_threshold_loss_hand_worked():
    probs = np.array([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    params = {"w": np.eye(2), "threshold": np.array([0.5, 0.5])}
    _, cache = strictly_balanced.route(params, np.log(probs), k=1, training=True)
    loss = strictly_balanced.threshold_loss(cache)
    # expert 0: token 1 is above .5 and not taken, +(.6 − .5); expert 1: token 1 is taken and not
    # above, −(.4 − .5)
    np.testing.assert_allclose(loss.value, 0.2, rtol=1e-12)
    assert loss.dthreshold.tolist() == [-1, 1]


def test_threshold_loss_is_zero_where_the_masks_agree_and_positive_elsewhere():
    params, x = problem(1)
    probs = np.sort(numerics.softmax(x @ params["w"]), axis=0)[::-1]
    between = (probs[5] + probs[6]) / 2  # m = 6
    _, cache = strictly_balanced.route({**params, "threshold": between}, x, k=2, training=True)
    loss = strictly_balanced.threshold_loss(cache)
    assert loss.value == 0 and (loss.dlogits == 0).all() and (loss.dthreshold == 0).all()
    assert loss.dweight is None and loss.dload is None
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = between + rng.normal(size=4) * 0.3
        _, cache = strictly_balanced.route({**params, "threshold": moved}, x, k=2, training=True)
        by_threshold, _ = strictly_balanced.route(
            {**params, "threshold": moved}, x, k=2, training=False
        )
        assert strictly_balanced.threshold_loss(cache).value > 0 or np.array_equal(
            by_threshold.demand, cache.kept
        )


@pytest.mark.parametrize("seed", range(5))
def test_threshold_loss_gradient(seed):
    params, x = problem(seed)
    params["threshold"] = params["threshold"] + np.random.default_rng(seed).normal(size=4) * 0.1

    def loss(p):
        inner = {name: p[name] for name in params}
        return strictly_balanced.threshold_loss(
            strictly_balanced.route(inner, p["x"], k=2, training=True)[1]
        ).value

    routing, cache = strictly_balanced.route(params, x, k=2, training=True)
    gradients = strictly_balanced.threshold_loss(cache)
    dx, grads = strictly_balanced.route_backward(
        np.zeros(len(routing.token)), gradients.dlogits, cache
    )
    grads = {"x": dx, "w": grads["w"], "threshold": grads["threshold"] + gradients.dthreshold}
    errors = gradient_error(loss, {**params, "x": x}, grads, np.random.default_rng(seed), step=1e-5)
    assert max(errors.values()) < 1e-7, errors


def test_the_loss_teaches_the_thresholds_the_batchwise_mask():
    params, x = problem(3, N=200)
    agree = []
    for _ in range(300):
        routing, cache = strictly_balanced.route(params, x, k=2, training=True)
        by_threshold, _ = strictly_balanced.route(params, x, k=2, training=False)
        agree.append((routing.demand == by_threshold.demand).mean())
        params = {
            **params,
            "threshold": params["threshold"]
            - 1e-4 * strictly_balanced.threshold_loss(cache).dthreshold,
        }
    assert agree[0] < 0.95 and agree[-1] > 0.99


def test_training_is_with_a_generator_unless_it_is_said():
    params, x = problem()
    rng = np.random.default_rng(0)
    batch = strictly_balanced.route(params, x, k=2, training=True)[0].demand
    threshold = strictly_balanced.route(params, x, k=2, training=False)[0].demand
    assert not np.array_equal(batch, threshold)
    assert np.array_equal(strictly_balanced.route(params, x, k=2)[0].demand, threshold)
    assert np.array_equal(strictly_balanced.route(params, x, k=2, rng=rng)[0].demand, batch)
    assert np.array_equal(
        strictly_balanced.route(params, x, k=2, training=False, rng=rng)[0].demand, threshold
    )
    with pytest.raises(InputError, match="training: wanted True, False or None, got 'batch'"):
        strictly_balanced.route(params, x, k=2, training="batch")


def test_the_initialisation():
    params = strictly_balanced.init(np.random.default_rng(0), 4, 3)
    drawn = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(params["w"], drawn / 2)
    assert params["threshold"].tolist() == [1 / 3] * 3
    scaled = strictly_balanced.init(np.random.default_rng(0), 4, 3, scale=3.0)["w"]
    np.testing.assert_allclose(scaled, drawn * 1.5, rtol=1e-14)
