"""Held against a named router: where its bias enters, and logits that are not x·w."""

import numpy as np
import pytest

from moe_np import routing
from moe_np.audit import assert_router, audit
from moe_np.audit.calling import reference_parameters
from moe_np.base.numerics import softmax
from tests.audit.bank.numpy_bank import best, kept_weights

ONLY = ("reference router", "ties")


def bias_for_the_choice(x, w, bias, k=2):
    logits = x @ w
    index = best(logits + bias, k)
    return softmax(np.take_along_axis(logits, index, axis=1)), index


def bias_in_the_logits(x, w, bias, k=2):
    return kept_weights(x @ w + bias, k)


def bias_not_used(x, w, bias, k=2):
    scores = 1 / (1 + np.exp(-(x @ w)))
    index = best(scores, k)
    chosen = np.take_along_axis(scores, index, axis=1)
    return chosen / chosen.sum(axis=1, keepdims=True), index


def one_threshold(x, w, threshold, k=2, training=False):
    """All experts share the mean of the thresholds."""
    probs = softmax(x @ w)
    if training:
        m = min(len(x), -(-k * len(x) // w.shape[1]))
        kept = probs * (probs >= -np.sort(-probs, axis=0)[m - 1])
    else:
        kept = probs * (probs > threshold.mean())
    total = kept.sum(axis=1, keepdims=True)
    return kept / np.where(total > 0, total, 1)


def without_bias(x, w, k=2):
    return kept_weights(x @ w, k)


class BiasOfAnObject:
    """The choice alone sees a bias that is an attribute and begins at 0."""

    def __init__(self, d_model, n_experts):
        self.weight = np.random.default_rng(0).normal(size=(d_model, n_experts))
        self.bias = np.zeros(n_experts)

    def __call__(self, x):
        return bias_for_the_choice(x, self.weight, self.bias)


@pytest.mark.parametrize(
    ("router", "like"),
    [
        (bias_for_the_choice, "biased_top_k"),
        (BiasOfAnObject, "biased_top_k"),
        (bias_not_used, "bias_balanced"),
        (one_threshold, "strictly_balanced"),
    ],
)
def test_a_parameter_in_the_wrong_place_is_told(router, like):
    faults = audit(router, like=like, k=2, only=ONLY).faults
    assert len(faults) == 1 and faults[0].text.startswith(f"differs from {like} in evaluation")


def test_a_bias_in_its_place_is_right():
    report = assert_router(bias_in_the_logits, like="biased_top_k", k=2)
    assert report.findings[0].text == "equal to biased_top_k"
    finding = audit(bias_in_the_logits, only=ONLY).findings[0]
    assert finding.verdict == "right" and "equal to biased_top_k(k=2" in finding.text


def test_a_bias_that_cannot_be_set_is_no_proof():
    finding = audit(without_bias, like="biased_top_k", k=2, only=ONLY).findings[0]
    assert finding.verdict == "unknown" and "cannot set its bias" in finding.text


@pytest.mark.parametrize("name", routing.routers())
def test_no_parameter_of_a_reference_is_constant(name):
    for array in reference_parameters(routing.routers()[name], 8, 4).values():
        assert np.ptp(array) > 0
        assert array.all() or array.dtype.kind == "i"  # 0 is an expert in a table


def test_logits_that_are_no_product_are_not_accused():
    def cosine(x, w, k=2):
        unit = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9)
        return kept_weights(5 * unit @ (w / np.linalg.norm(w, axis=0)), k)

    check = "constant added to all logits"
    finding = audit(cosine, like="top_k", k=2, only=(check,)).findings[0]
    assert finding.verdict == "unknown" and "x·w" in finding.text
    assert audit(without_bias, like="top_k", k=2, only=(check,)).findings[0][1] == "right"

    def masked_with_zero(x, w, k=2):
        logits = x @ w
        mask = np.zeros_like(logits)
        np.put_along_axis(mask, best(logits, k), 1.0, axis=1)
        return softmax(logits * mask)

    assert audit(masked_with_zero, like="top_k", k=2, only=(check,)).faults
