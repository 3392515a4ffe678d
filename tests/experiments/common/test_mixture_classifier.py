"""The classifier of one sparse layer: its gradient, the dense case, and the choice of a rate."""

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.experiments.common import mixture_classifier
from moe_np.experiments.common.dense_and_mixture import Shape
from moe_np.experiments.common.mixture_classifier import Data
from moe_np.layers import cross_entropy


def data(n=40, d_in=5, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d_in)).astype(np.float32)
    return Data(x, (np.abs(x[:, 0]) + x[:, 1] > 1).astype(np.int64) + (x[:, 2] > 1))


def init(shape, seed=1):
    return mixture_classifier.init(np.random.default_rng(seed), 5, 3, shape)


def test_a_logit_is_the_probability_times_the_output_of_the_chosen_expert():
    params = init(Shape(4, 6))
    x = data().x
    logits, _ = mixture_classifier.forward(params, x)
    z = x @ params["router"]["w"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    expert = p.argmax(axis=1)
    net = {name: value[expert] for name, value in params["experts"].items()}
    hidden = np.maximum(np.einsum("nd,ndh->nh", x, net["w1"]) + net["b1"], 0)
    out = np.einsum("nh,nhc->nc", hidden, net["w2"]) + net["b2"]
    np.testing.assert_allclose(logits, p.max(axis=1)[:, None] * out, rtol=2e-5, atol=1e-6)
    assert (mixture_classifier.expert_of(params, x) == expert).all()


@pytest.mark.parametrize("shape", [Shape(1, 7), Shape(4, 6)])
def test_the_gradient_is_that_of_the_loss(shape):
    params = {
        group: {name: p.astype(np.float64) for name, p in arrays.items()}
        for group, arrays in init(shape).items()
    }
    cases = data()._replace(x=data().x.astype(np.float64))

    def loss():
        logits, cache = mixture_classifier.forward(params, cases.x)
        added = mixture_classifier.mixture_layer.balance_loss(mixture_classifier.SWITCH_LOSS, cache)
        return cross_entropy.forward(logits, cases.y)[0] + added.value

    _, grads = mixture_classifier.loss_and_grads(params, cases)
    direction = np.random.default_rng(2)
    for path, p in leaves(params).items():
        step = direction.normal(size=p.shape)
        kept = p.copy()
        values = []
        for sign in (1, -1):
            p[...] = kept + sign * 1e-6 * step
            values.append(loss())
        p[...] = kept
        expected = (values[0] - values[1]) / 2e-6
        assert (leaves(grads)[path] * step).sum() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_the_rate_with_the_least_validation_loss_is_kept():
    cases, validation = data(), data(seed=3)
    options = {"updates": 30, "batch": 16, "every": 10, "seed": 0}

    def trained(*rates):
        return mixture_classifier.trained(
            lambda: init(Shape(4, 6)), cases, validation, learning_rates=rates, **options
        )

    slow, fast = trained(1e-6), trained(3e-2)
    both = trained(1e-6, 3e-2)
    assert both.learning_rate == 3e-2 and slow.validation_loss > fast.validation_loss
    assert both.validation_loss == fast.validation_loss
    again = mixture_classifier.loss_on(both.params, validation)
    assert again == pytest.approx(both.validation_loss)
    assert 0 <= mixture_classifier.accuracy(both.params, validation) <= 100
