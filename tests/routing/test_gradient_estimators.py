"""A hard choice of one expert: REINFORCE has no bias, straight-through is biased, but once."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.layers import experts, sparse_layer
from moe_np.routing import gradient_estimators
from tests.support.draws import Constant
from tests.support.routers import Case

CASES = {
    "gradient_estimators reinforce": Case(
        gradient_estimators, {"estimator": "reinforce"}, noisy=True
    ),
    # the gradient that straight-through gives is not that of the weight, which is 1
    "gradient_estimators straight_through": Case(
        gradient_estimators, {"estimator": "straight_through"}, learned=False, noisy=True
    ),
}

PROBS = np.array([0.5, 0.3, 0.15, 0.05])
LOSSES = np.array([1.0, -0.5, 2.0, 4.0])  # what the token's loss is under each expert
DRAWS = 40_000


def exact():
    """d/dlogits of Σ_i σ_i L_i, by enumeration."""
    return np.array([PROBS[j] * (LOSSES[j] - PROBS @ LOSSES) for j in range(4)])


def drawn(seed=0, **options):
    """DRAWS copies of one token, each with its own draw: (routing, cache)."""
    x = np.tile(np.log(PROBS), (DRAWS, 1))
    return gradient_estimators.route(
        {"w": np.eye(4)}, x, rng=np.random.default_rng(seed), **options
    )


def logit_gradients(dweight, cache):
    """route_backward gives x·I's gradient, which here is that of the logits: (DRAWS, 4)."""
    return gradient_estimators.route_backward(dweight, None, cache)[0]


def within(samples, mean, sds=5):
    """The mean of the rows of `samples` agrees with `mean` to 5 standard errors."""
    error = samples.std(axis=0) / np.sqrt(len(samples))
    return (np.abs(samples.mean(axis=0) - mean) < sds * error + 1e-12).all()


def test_the_draw_follows_the_probabilities():
    routing, _ = drawn(estimator="reinforce")
    assert (routing.weight == 1).all() and np.array_equal(routing.token, np.arange(DRAWS))
    assert within(routing.demand.astype(float), PROBS)
    assert np.array_equal(routing.demand, routing.expert[:, None] == np.arange(4))


def test_a_draw_at_the_ends():
    class At:
        def __init__(self, u):
            self.u = u

        def random(self, n):
            return np.full(n, self.u)

    p = np.array([[0.0, 0.5, 0.5, 0.0]])
    assert gradient_estimators.draw(p, At(0.0)).tolist() == [1], (
        "an expert of probability 0 is not drawn"
    )
    assert gradient_estimators.draw(p, At(np.nextafter(1, 0))).tolist() == [2]
    assert gradient_estimators.draw(p, At(0.5)).tolist() == [2]
    thirds = np.full((1, 3), 1 / 3)
    assert gradient_estimators.draw(thirds, At(np.nextafter(1, 0))).tolist() == [2]
    assert gradient_estimators.draw(p, None).tolist() == [1]


def test_reinforce_is_unbiased():
    routing, _ = drawn(estimator="reinforce")
    samples = gradient_estimators.reinforce(routing, LOSSES[routing.expert])
    assert within(samples, exact()) and np.abs(exact()).max() > 0.2
    assert not within(samples, 0 * exact()), "the test can tell"


def test_a_baseline_leaves_the_mean_and_lowers_the_variance():
    routing, _ = drawn(estimator="reinforce")
    loss = LOSSES[routing.expert] + 3
    variance = {}
    for name, b in (
        ("none", 0.0),
        ("mean", PROBS @ LOSSES + 3),
        ("best", gradient_estimators.best_baseline(routing, loss)),
    ):
        samples = gradient_estimators.reinforce(routing, loss, b)
        assert within(samples, exact()), name
        variance[name] = samples.var(axis=0).sum()
    assert variance["best"] < variance["mean"] < 0.4 * variance["none"]


def test_the_best_baseline_is_the_best():
    """Σ_i p_i ‖e_i − p‖² L_i / Σ_i p_i ‖e_i − p‖², from the definition, and the variance is higher
    on both sides.
    """
    norm = ((np.eye(4) - PROBS) ** 2).sum(axis=1)
    b = (PROBS * norm * LOSSES).sum() / (PROBS * norm).sum()

    def variance(b):
        g = (LOSSES - b)[:, None] * (np.eye(4) - PROBS)
        return (PROBS[:, None] * (g - exact()) ** 2).sum()

    assert variance(b) < min(variance(b + 0.01), variance(b - 0.01))
    routing, _ = drawn(estimator="reinforce")
    assert gradient_estimators.best_baseline(routing, LOSSES[routing.expert]) == pytest.approx(
        b, abs=0.02
    )


def test_a_baseline_of_its_own_per_token():
    routing, _ = drawn(estimator="reinforce")
    b = np.random.default_rng(7).normal(size=DRAWS)
    assert within(gradient_estimators.reinforce(routing, LOSSES[routing.expert], b), exact())


def test_straight_through_with_all_rows_is_exact_for_a_loss_linear_in_the_weights():
    routing, cache = drawn(estimator="straight_through", rows="all")
    assert len(routing.token) == 4 * DRAWS and routing.weight.sum() == DRAWS
    samples = logit_gradients(LOSSES[routing.expert], cache)  # L = Σ_i h_i L_i, so dL/dh_i = L_i
    np.testing.assert_allclose(samples, np.tile(exact(), (DRAWS, 1)), rtol=1e-10)


def test_straight_through_is_biased_when_the_loss_bends():
    """L(h) = (Σ h_i c_i − t)²: the true gradient needs L at every one-hot h, straight-through only
    its slope at one.
    """
    c = np.array([1.0, -1.0, 3.0, 0.5])
    t = 0.7
    true = PROBS * ((c - t) ** 2 - PROBS @ (c - t) ** 2)
    routing, cache = drawn(estimator="straight_through", rows="all")
    hit = c[np.argmax(routing.demand, axis=1)]
    dweight = 2 * (hit - t)[routing.token] * c[routing.expert]
    samples = logit_gradients(dweight, cache)
    assert not within(samples, true)
    assert np.abs(samples.mean(axis=0) - true).max() > 0.1
    # what it does converge to, by enumeration
    limit = sum(
        p * numerics.softmax_backward(2 * (c[i] - t) * c, PROBS) for i, p in enumerate(PROBS)
    )
    assert within(samples, limit)
    # REINFORCE on the same loss has no bias
    routing, _ = drawn(estimator="reinforce")
    assert within(gradient_estimators.reinforce(routing, (c[routing.expert] - t) ** 2), true)


def test_straight_through_with_chosen_rows_is_biased_even_for_a_linear_loss():
    routing, cache = drawn(estimator="straight_through")
    samples = logit_gradients(LOSSES[routing.expert], cache)
    assert not within(samples, exact())
    assert within(samples, numerics.softmax_backward(PROBS * LOSSES, PROBS))


def test_with_two_experts_and_a_sure_gate_all_estimates_vanish():
    x = np.array([[800.0, -800.0]])
    for options in ({"estimator": "reinforce"}, {"estimator": "straight_through"}):
        routing, cache = gradient_estimators.route(
            {"w": np.eye(2)}, x, **options, rng=np.random.default_rng(0)
        )
        dlogits = gradient_estimators.reinforce(routing, np.array([3.0]))
        dx, _ = gradient_estimators.route_backward(np.ones(1), dlogits, cache)
        assert (dx == 0).all()


@pytest.mark.parametrize("estimator", ["reinforce", "straight_through"])
def test_in_the_sparse_layer_the_mean_is_the_gradient_of_the_expected_loss(estimator):
    """Through a whole layer: y = expert of the choice, loss = dout·y, against the same with soft
    weights σ.
    """
    rng = np.random.default_rng(0)
    N, D, E, reps = 5, 3, 3, 6000
    w = rng.normal(size=(D, E))
    x = rng.normal(size=(N, D))
    layer = experts.LINEAR.init(rng, D, E)
    dout = rng.normal(size=(N, D))
    probs = numerics.softmax(x @ w)
    answers = np.einsum("nd,edf->nef", x, layer["w"]) + layer["b"]
    losses = np.einsum("nf,nef->ne", dout, answers)
    true = x.T @ numerics.softmax_backward(losses, probs)  # of Σ_n Σ_e σ_ne L_ne
    big = np.tile(x, (reps, 1))
    dbig = np.tile(dout, (reps, 1))
    options = {
        "estimator": estimator,
        "rows": "all" if estimator == "straight_through" else "chosen",
    }
    routing, cache = gradient_estimators.route(
        {"w": w}, big, **options, rng=np.random.default_rng(1)
    )
    y, layer_cache = sparse_layer.forward(layer, big, routing, experts.LINEAR)
    _, _, dweight = sparse_layer.backward(dbig, layer_cache)
    dlogits = (
        gradient_estimators.reinforce(routing, (dbig * y).sum(axis=1))
        if estimator == "reinforce"
        else None
    )
    _, grads = gradient_estimators.route_backward(dweight, dlogits, cache)
    # the spread over repetitions, from the logits' own gradients
    per_token = dlogits if estimator == "reinforce" else np.zeros_like(routing.probs)
    parts = np.einsum("rnd,rne->rde", big.reshape(reps, N, D), per_token.reshape(reps, N, E))
    error = parts.std(axis=0) / np.sqrt(reps)
    assert (np.abs(grads["w"] / reps - true) < 5 * error + 1e-9).all()


def test_errata_16_a_mean_loss_wants_a_mean_gradient():
    routing, _ = drawn(estimator="reinforce")
    loss = LOSSES[routing.expert]
    total = gradient_estimators.reinforce(routing, loss / DRAWS, 0.5 / DRAWS)
    np.testing.assert_allclose(
        total * DRAWS, gradient_estimators.reinforce(routing, loss, 0.5), rtol=1e-9
    )


def test_bad_options():
    params = {"w": np.eye(4)}
    x = np.zeros((3, 4))
    with pytest.raises(
        InputError, match="estimator: wanted one of reinforce, straight_through; got 'gumbel'"
    ):
        gradient_estimators.route(params, x, estimator="gumbel")
    with pytest.raises(InputError, match="rows: wanted 'chosen' with reinforce"):
        gradient_estimators.route(params, x, estimator="reinforce", rows="all")
    routing, _ = gradient_estimators.route(params, x, estimator="reinforce")
    with pytest.raises(InputError, match=r"loss: wanted shape \(3,\), got \(2,\)"):
        gradient_estimators.reinforce(routing, np.zeros(2))


# --- a binary unit --------------------------------------------------------------------------------


def test_bernoulli_estimators():
    a, on, off = 0.8, 2.0, -1.0
    h, sigma = gradient_estimators.bernoulli(np.full(DRAWS, a), np.random.default_rng(0))
    assert set(h) == {0.0, 1.0} and abs(h.mean() - sigma[0]) < 0.012
    true = sigma[0] * (1 - sigma[0]) * (on - off)
    samples = gradient_estimators.bernoulli_reinforce(h, sigma, np.where(h == 1, on, off))
    assert within(samples[:, None], true)
    # the baseline of least variance for one unit is L(1)(1 − σ) + L(0)σ: then every sample is the
    # exact gradient
    b = on * (1 - sigma[0]) + off * sigma[0]
    np.testing.assert_allclose(
        gradient_estimators.bernoulli_reinforce(h, sigma, np.where(h == 1, on, off), b),
        true,
        rtol=1e-9,
    )
    # straight-through: dL/dh = L(1) − L(0) for a loss linear in h: exact with the slope, 1/σ(1 − σ)
    # too large without
    np.testing.assert_allclose(
        gradient_estimators.bernoulli_straight_through(np.full(3, on - off), sigma[:3]),
        true,
        rtol=1e-12,
    )
    assert gradient_estimators.bernoulli_straight_through(on - off) == pytest.approx(
        true / (sigma[0] * (1 - sigma[0]))
    )


@pytest.mark.parametrize("u", [0.0, np.nextafter(1, 0)])
def test_a_unit_of_probability_0_is_never_on_and_one_of_probability_1_always(u):
    h, sigma = gradient_estimators.bernoulli(np.array([-1e4, 1e4]), Constant(u))
    assert sigma.tolist() == h.tolist() == [0, 1]


def test_bernoulli_without_an_rng_is_a_threshold():
    h, _ = gradient_estimators.bernoulli(np.array([-1.0, -1e-9, 1e-9, 2.0]))
    assert h.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("baseline", [np.nan, "0", None, [1.0, 2.0], 1j])
def test_the_baseline_is_checked(baseline):
    params = gradient_estimators.init(np.random.default_rng(0), 4, 3)
    routing, _ = gradient_estimators.route(params, np.ones((3, 4)), estimator="reinforce")
    with pytest.raises(InputError, match="baseline: wanted"):
        gradient_estimators.reinforce(routing, np.ones(3), baseline)
