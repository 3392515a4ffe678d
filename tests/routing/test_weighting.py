"""Weights of the chosen experts, forward and backward."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.gradcheck import gradient_error
from moe_np.routing import contract, weighting


def problem(seed=0, N=6, E=5, k=2):
    logits = np.random.default_rng(seed).normal(size=(N, E))
    return logits, contract.top_k(logits, k), np.random.default_rng(seed + 1).normal(size=(N, k))


def test_rows_and_back():
    _, choice, weight = problem()
    valid = np.array([True, False, True, True, False, True])
    token, expert, rows = weighting.rows(choice, weight, valid)
    assert token.tolist() == [0, 0, 2, 2, 3, 3, 5, 5]
    assert np.array_equal(expert, choice[valid].ravel())
    back = weighting.rows_backward(rows, weight.shape, valid)
    assert np.array_equal(back, np.where(valid[:, None], weight, 0))
    token, _, rows = weighting.rows(choice, weight, None)
    assert token.tolist() == np.repeat(range(6), 2).tolist()
    assert np.array_equal(weighting.rows_backward(rows, weight.shape, None), weight)


def test_renormalised_is_the_probabilities_over_their_sum():
    logits, choice, dweight = problem()
    weight = weighting.renormalised(logits, choice)
    kept = np.take_along_axis(numerics.softmax(logits), choice, axis=1)
    np.testing.assert_allclose(weight, kept / kept.sum(axis=1, keepdims=True), rtol=1e-12)
    dlogits = weighting.renormalised_backward(dweight, weight, choice, 5)
    assert (dlogits[~contract.demand_of(choice, 5)] == 0).all()

    def loss(p):
        return (weighting.renormalised(p["logits"], choice) * dweight).sum()

    errors = gradient_error(loss, {"logits": logits}, {"logits": dlogits}, np.random.default_rng(0))
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("form", ["list", "table"])
def test_the_gradient_of_the_probabilities(form):
    logits, choice, dweight = problem()
    token = np.arange(6)[:, None]
    if form == "list":
        token, choice, dweight = np.repeat(range(6), 2), choice.ravel(), dweight.ravel()
    dlogits = weighting.probs_backward(dweight, token, choice, numerics.softmax(logits))

    def loss(p):
        return (numerics.softmax(p["logits"])[token, choice] * dweight).sum()

    errors = gradient_error(loss, {"logits": logits}, {"logits": dlogits}, np.random.default_rng(0))
    assert max(errors.values()) < 1e-7, errors


def test_the_gradient_of_the_losses_is_added_but_for_padding():
    dscore = np.ones((3, 2))
    dlogits = np.full((3, 2), np.nan)
    assert weighting.with_dlogits(dscore, None, None) is dscore
    dlogits[:2] = [[1, 2], [3, 4]]
    valid = np.array([True, True, False])
    total = weighting.with_dlogits(dscore, dlogits, valid)
    assert total.tolist() == [[2, 3], [4, 5], [1, 1]]
