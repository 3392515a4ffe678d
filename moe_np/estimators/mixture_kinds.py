"""The two mixtures that an estimator fits: with one gating network, and with a tree of them.

Each is a class that adds `search(cases, options)` and `arguments(x)` to an estimator.
"""

from typing import Any

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayND
from moe_np.estimators.cases import Cases
from moe_np.mixtures import em, hme_fit


class OneGate:
    """A mixture of experts with one gating network, of `n_experts` experts.

    gate_features, expert_features    which columns of X the gate and the experts see: numbers,
    names or a mask; None is all
    """

    n_experts: int
    gate_features: Any
    expert_features: Any

    def search(self, cases: Cases, options: dict[str, Any]) -> em.Fit:
        """`em.fit` of the cases."""
        arguments = self.arguments(cases.x)
        n_experts = checks.size("n_experts", self.n_experts)
        check_continued(options["initial"], n_experts, arguments["x"], cases)
        return em.fit(y=cases.y, n_experts=n_experts, **arguments, **options)

    def arguments(self, x: ArrayND) -> dict[str, Any]:
        """The inputs of the experts, and of the gate where these are others."""
        inputs = columns(self, "expert_features", x)
        same = self.gate_features is None and self.expert_features is None
        return {"x": inputs, "gate_x": None if same else columns(self, "gate_features", x)}


class GateTree:
    """A hierarchical mixture of experts (HME): the branches on each level are `tree`."""

    tree: tuple[int, ...]

    def search(self, cases: Cases, options: dict[str, Any]) -> hme_fit.TreeFit:
        """`hme_fit.fit` of the cases."""
        check_continued(options["initial"], hme_fit.n_leaves(self.tree), cases.x, cases)
        return hme_fit.fit(cases.x, cases.y, tuple(self.tree), **options)

    def arguments(self, x: ArrayND) -> dict[str, Any]:
        """The inputs, which gates and experts share."""
        return {"x": x}


def columns(estimator: Any, name: str, x: ArrayND) -> ArrayND:
    """The columns of x that the parameter `name` of the estimator lists, in its order."""
    wanted = getattr(estimator, name)
    if wanted is None:
        return x
    D = x.shape[1]
    names = list(getattr(estimator, "feature_names_in_", ()))
    listed = np.asarray(wanted)
    if listed.dtype == bool:
        listed = np.flatnonzero(checks.mask(name, listed, (D,)))
    numbers = []
    for column in listed.tolist() if listed.ndim == 1 else [wanted]:
        if isinstance(column, str) and column in names:
            numbers.append(names.index(column))
        elif isinstance(column, int) and -D <= column < D:
            numbers.append(column)
        else:
            raise checks.InputError(
                f"{name}: wanted numbers below {D} or names of features of X, got "
                f"{checks.text(column)}"
            )
    return x[:, numbers]


def check_continued(initial: Any, E: int, x: ArrayND, cases: Cases) -> None:
    """Check that the fit that warm_start continues has the same experts, inputs and outputs."""
    if initial is None:
        return
    shape = initial["W"].shape
    C = cases.y.shape[1] if cases.y.ndim == 2 else shape[2]
    if shape != (E, x.shape[1], C):
        raise checks.InputError(
            f"warm_start: wanted {shape[0]} experts, {shape[1]} inputs and {shape[2]} outputs, as "
            f"the fit before, got {E}, {x.shape[1]} and {C}"
        )
