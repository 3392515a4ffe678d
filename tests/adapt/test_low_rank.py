"""Low-rank adapters: nothing changes at first, merged they give equal outputs, and gradients."""

import numpy as np
import pytest

from moe_np.adapt import layer_parts, low_rank
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.base.params import flatten, leaves, map_leaves, unflatten
from moe_np.layers import balance
from moe_np.layers.mixture_layer import KINDS
from moe_np.models import decoder
from tests.support.adapted import DENSE, SPARSE, ids_of, logits_of, params_of

MIXED = SPARSE._replace(dense_layers=(1,))


def adapters_of(config, params, rank=3, *, zero=False):
    rng = np.random.default_rng(7)
    adapters = low_rank.init(rng, config, params, rank=rank)
    return adapters if zero else map_leaves(lambda p: p + 0.3 * rng.normal(size=p.shape), adapters)


def test_before_training_the_model_keeps_its_bits():
    params = params_of(MIXED)
    adapters = adapters_of(MIXED, params, zero=True)
    assert adapters["layers"][1] == {}, "the dense layer has none"
    merged = low_rank.merged(params, adapters, alpha=8)
    np.testing.assert_array_equal(logits_of((MIXED, merged)), logits_of((MIXED, params)))


@pytest.mark.parametrize("kind", ["swiglu", "gelu"])
def test_merged_they_equal_the_two_products_beside_the_matrix(kind):
    config = SPARSE._replace(expert=kind)
    params = params_of(config)
    adapters = adapters_of(config, params)
    layer = low_rank.merged(params, adapters, alpha=6)["layers"][0]
    h = np.random.default_rng(0).normal(size=(9, 12))
    for m in range(4):
        expert = layer_parts.stacked([layer_parts.expert_of(layer, m)])
        ours = KINDS[kind].forward(expert, h, np.array([0, 9]))[0]
        old = layer_parts.expert_of(params["layers"][0], m)
        np.testing.assert_allclose(ours, beside(kind, old, adapters["layers"][0], m, h), atol=1e-12)


def beside(kind, old, adapters, m, h, s=6 / 3):
    """W x + s B (A x), as the paper writes it."""

    def product(name, x):
        pair = adapters[name]
        return x @ old[name] + s * ((x @ pair["a"][m]) @ pair["b"][m])

    if kind == "swiglu":
        a = product("w1", h)
        return product("w2", a / (1 + np.exp(-a)) * product("w3", h))
    from scipy.stats import norm

    z = product("w1", h) + old["b1"]
    return product("w2", z * norm.cdf(z)) + old["b2"]


def test_the_gradients_of_the_adapters():
    params = params_of(MIXED)
    adapters = adapters_of(MIXED, params)
    ids, targets = ids_of(), ids_of(2)
    options = {"alpha": 5.0, "losses": ((0.1, balance.switch),)}

    def loss(vector):
        moved = unflatten(vector["p"], adapters)
        losses, _ = low_rank.loss_and_grads(moved, params, ids, targets, MIXED, **options)
        return losses.task + sum(losses.balance)

    _, grads = low_rank.loss_and_grads(adapters, params, ids, targets, MIXED, **options)
    shapes = [{path: g.shape for path, g in leaves(tree).items()} for tree in (grads, adapters)]
    assert shapes[0] == shapes[1]
    flat = {"p": flatten(adapters)}, {"p": flatten(grads, adapters)}
    assert gradient_error(loss, *flat, np.random.default_rng(0), step=1e-4)["p"] < 1e-6


def test_training_the_adapters_lowers_the_loss_and_leaves_the_model():
    params = params_of(SPARSE)
    before = map_leaves(np.array, params)
    adapters = adapters_of(SPARSE, params, zero=True)
    losses = []
    for _ in range(30):
        loss, grads = low_rank.loss_and_grads(
            adapters, params, ids_of(), ids_of(2), SPARSE, alpha=3, losses=()
        )
        losses.append(loss.task)
        adapters = map_leaves(lambda p, g: p - 0.5 * g, adapters, grads)
    assert losses[-1] < losses[0] - 0.1
    for path, p in leaves(params).items():
        np.testing.assert_array_equal(p, leaves(before)[path])
    assert decoder.forward(params, ids_of(), SPARSE)[0].shape == (3, 7, 30)


def test_refusals():
    rng = np.random.default_rng(0)
    params = params_of(SPARSE)
    with pytest.raises(InputError, match=r"rank: wanted .*at most 8, got 9"):
        low_rank.init(rng, SPARSE, params, rank=9)
    with pytest.raises(InputError, match="got a dense one"):
        low_rank.init(rng, DENSE, params_of(DENSE), rank=2)
    other = SPARSE._replace(experts=3)
    with pytest.raises(InputError, match="adapters: w1: a"):
        low_rank.merged(params, adapters_of(other, params_of(other)), alpha=1)
    with pytest.raises(InputError, match="adapters of 2 layers, got 1"):
        low_rank.merged(params, {"layers": [{}]}, alpha=1)
