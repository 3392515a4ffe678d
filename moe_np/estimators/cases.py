"""Cases with weights: inputs, `sample_weight`, and the distinct cases of a data set.

A fit depends on the data as a set of cases with weights: on no order, and not on whether a case
stands twice or has weight 2. So EM sees every distinct case once, in a fixed order, with the sum of
its weights. Then its random initialisations are the same for the same set, to the bit.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayND


class Cases(NamedTuple):
    """The distinct cases of a data set."""

    x: ArrayND
    y: Annotated[np.ndarray, "N, C or N"]
    weight: ArrayN | None  # None: 1 for every case


def read_inputs(estimator: Any, X: Any) -> ArrayND:
    """X as a fitted estimator needs it: float64, with the number and names of features of `fit`."""
    check_is_fitted(estimator)
    return np.asarray(validate_data(estimator, X, reset=False, dtype=np.float64, order="C"))


def case_weights(sample_weight: Any, N: int) -> ArrayN:
    """`sample_weight` as an array (N,), None as ones. Raises InputError for bad weights."""
    if sample_weight is None:
        return np.ones(N)
    weight = checks.array("sample_weight", sample_weight, (N,)).astype(np.float64)
    if weight.min(initial=0) < 0:
        raise checks.InputError(
            f"sample_weight: wanted no negative weights, got {weight.min():g} at index "
            f"{weight.argmin()}"
        )
    if not weight.any():
        raise checks.InputError("sample_weight: wanted a weight above zero, got only zero weights")
    return weight


def distinct_cases(x: ArrayND, y: np.ndarray, weight: ArrayN) -> Cases:
    """The cases with a weight above 0, sorted, equal ones as one case with the sum of weights."""
    used = weight > 0
    rows = np.column_stack([x, y])[used] + 0.0  # −0 becomes 0
    order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    is_new = np.append(True, (rows[1:] != rows[:-1]).any(axis=1))
    total = np.add.reduceat(weight[used][order], np.flatnonzero(is_new))
    rows = rows[is_new]
    D = x.shape[1]
    y = rows[:, D:].reshape(len(rows), *y.shape[1:]).astype(y.dtype)
    return Cases(rows[:, :D], y, None if (total == 1).all() else total)
