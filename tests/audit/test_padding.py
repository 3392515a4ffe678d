"""What padding may change: nothing of other tokens, unless a stated convention says so."""

import numpy as np
import pytest

from moe_np import routing
from moe_np.audit import audit
from tests.audit.bank.numpy_bank import best, kept_weights, softmax, switch_weights


def all_valid(x, valid):
    return np.ones(len(x), bool) if valid is None else valid


def masked(x, w, k=2, valid=None):
    weights, index = kept_weights(x @ w, k)
    return weights * all_valid(x, valid)[:, None], index


def mean_of_all(x, w, k=2, valid=None):
    weights, index = kept_weights((x - x.mean(axis=0)) @ w, k)
    return weights * all_valid(x, valid)[:, None], index


def sum_over_length(x, w, k=2, valid=None):
    """Padding is 0 in the sum and still counted."""
    mean = (x * all_valid(x, valid)[:, None]).sum(axis=0) / max(len(x), 1)
    return masked(x - mean, w, k, valid)


def mean_without_mask(x, w, k=2):
    return kept_weights((x - x.mean(axis=0)) @ w, k)


def places_for_padding(x, w, capacity_factor=1.0, valid=None):
    """Padding has no weight and takes places."""
    C = int(np.ceil(capacity_factor * len(x) / w.shape[1]))
    probs, expert, kept = switch_weights(x, w, C)
    return probs.max(axis=1, initial=0) * kept * all_valid(x, valid), expert


def capacity_of_the_length(x, w, capacity_factor=1.0, valid=None):
    """Padding takes no place; the number of places is that of all rows."""
    valid = all_valid(x, valid)
    C = int(np.ceil(capacity_factor * len(x) / w.shape[1]))
    probs = softmax(x @ w)
    expert = best(probs, 1)[:, 0]
    onehot = np.eye(w.shape[1])[expert] * valid[:, None]
    kept = (onehot.cumsum(axis=0) * onehot).sum(axis=1) <= C
    return probs.max(axis=1, initial=0) * kept * valid, expert


def by_the_experts(x, w):
    gate = np.zeros((len(x), w.shape[1]))
    probs = softmax(x @ w)
    C = -(-len(x) // w.shape[1])
    for m in range(w.shape[1]):
        chosen = np.argsort(-probs[:, m], kind="stable")[:C]
        gate[chosen, m] = probs[chosen, m]
    return gate


def capacity_without_mask(x, w, capacity_factor=1.0):
    return places_for_padding(x, w, capacity_factor)


@pytest.mark.parametrize(
    ("router", "verdict", "erratum", "text"),
    [
        (masked, "right", None, "moves no other token"),
        (mean_of_all, "wrong", 13, "the numbers in the padding change"),
        (sum_over_length, "wrong", 13, "padding changes the routing"),
        (places_for_padding, "wrong", 13, "the numbers in the padding change"),
        (capacity_of_the_length, "convention", 9, "the capacity counts padding"),
        (mean_without_mask, "wrong", 13, "takes no mask of padding, and padding changes"),
        (by_the_experts, "convention", 13, "the experts choose their tokens"),
        (capacity_without_mask, "convention", 13, "experts have a capacity"),
        (lambda x, w: softmax(x @ w), "unknown", None, "no other token"),
    ],
)
def test_what_padding_changes(router, verdict, erratum, text):
    finding = audit(router, only=("padding",)).findings[0]
    assert (finding.verdict, finding.erratum) == (verdict, erratum)
    assert text in finding.text


@pytest.mark.parametrize("name", routing.routers())
def test_routers_of_the_package_ignore_padding(name):
    findings = audit(routing.routers()[name], only=("padding",)).findings
    assert [finding.verdict for finding in findings] == ["right"]
