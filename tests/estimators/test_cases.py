"""Distinct cases and their weights."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from moe_np.base.checks import InputError
from moe_np.estimators.cases import case_weights, distinct_cases


@pytest.mark.parametrize("y_dtype", [float, int])
def test_order_repetition_and_cases_of_weight_0_do_not_matter(y_dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (30, 2)).astype(float)
    y = rng.integers(0, 2, (30, 1) if y_dtype is float else 30).astype(y_dtype)
    weight = rng.integers(0, 4, 30)
    cases = distinct_cases(x, y, weight.astype(float))
    rows = rng.permutation(np.repeat(np.arange(30), weight))
    same = distinct_cases(x[rows], y[rows], np.ones(len(rows)))
    for ours, theirs in zip(cases, same, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert cases.weight.sum() == weight.sum() and cases.y.dtype == y.dtype
    assert len(np.unique(np.column_stack([cases.x, cases.y]), axis=0)) == len(cases.x)


def test_without_repetition_there_are_no_weights():
    x = np.array([[1.0], [-0.0], [2.0]])
    cases = distinct_cases(x, np.zeros((3, 1)), np.ones(3))
    assert cases.weight is None
    np.testing.assert_array_equal(cases.x[:, 0], [0, 1, 2])
    assert not np.signbit(cases.x[0, 0])


def test_weights_that_are_not_given_are_ones():
    np.testing.assert_array_equal(case_weights(None, 3), np.ones(3))
    np.testing.assert_array_equal(case_weights([1, 2, 0], 3), [1, 2, 0])


BAD = (
    ([1, 2], r"sample_weight: wanted shape \(3,\), got \(2,\)"),
    ([1, -2, 0], "sample_weight: wanted no negative weights, got -2 at index 1"),
    ([0, 0, 0], "sample_weight: wanted a weight above zero, got only zero weights"),
    ([1, np.nan, 0], "sample_weight: wanted finite numbers, got nan"),
)


@pytest.mark.parametrize(("weight", "message"), BAD)
def test_bad_weights(weight, message):
    with pytest.raises(InputError, match=message):
        case_weights(weight, 3)
