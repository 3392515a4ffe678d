"""The data and the settings of EM for a mixture of experts: `prepare` checks them once.

`moe_np.mixtures.em` works on a `Problem`; the letters are explained there.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, ArrayNE, Params
from moe_np.mixtures.em_families import Categorical, Family, Gaussian
from moe_np.mixtures.least_squares import Design, check_weight, make_design


class Problem(NamedTuple):
    """The data and the settings of EM, checked; `prepare` makes it."""

    inputs: Design
    gate_inputs: Design  # the same object, or the design of gate_x
    y: ArrayNC | ArrayN
    n_experts: int
    family: Family
    ridge: float
    irls_steps: int
    weight: ArrayN | None = None  # w of the cases; None is 1

    def n_cases(self) -> float:
        """Σ_n w_n: the number of cases, a case of weight 2 counting as two equal cases."""
        return len(self.y) if self.weight is None else float(self.weight.sum())

    def weighted(self, values: ArrayNE) -> ArrayNE:
        """w_n values_n: the responsibilities as the M step uses them."""
        return values if self.weight is None else values * self.weight[:, None]


def prepare(
    x: ArrayND,
    y: ArrayNC | ArrayN,
    n_experts: int,
    *,
    family: Family,
    gate_x: Array | None = None,
    ridge: float = 0.0,
    irls_steps: int = 1,
    weight: ArrayN | None = None,
) -> Problem:
    """Check data and settings and bring them into the form of the E and M steps."""
    if not isinstance(family, (Gaussian, Categorical)):
        raise checks.InputError(f"family: wanted Gaussian(...) or Categorical(...), got {family!r}")
    inputs = make_design(x)
    N = inputs.xt.shape[1]
    if N == 0:
        raise checks.InputError("x: wanted at least one case, got none")
    weight = check_case_weight(weight, N)
    family, y = family.resolve(y, weight)
    gate_inputs = inputs
    if gate_x is not None:
        gate_inputs = make_design(checks.array("gate_x", gate_x, (N, "D")))
    if len(y) != N:
        raise checks.InputError(f"y: wanted {N} cases, as x has, got {len(y)}")
    E = checks.size("n_experts", n_experts)
    irls_steps = checks.integer("irls_steps", irls_steps)
    ridge = checks.number("ridge", ridge, minimum=0)
    return Problem(inputs, gate_inputs, y, E, family, ridge, irls_steps, weight)


def check_params(problem: Problem, params: Params, name: str = "params") -> Params:
    """`params` as arrays, after checking keys, shapes and variances. `name` is for the messages."""
    E = problem.n_experts
    D = len(problem.inputs.mean)
    Dg = len(problem.gate_inputs.mean)
    family = problem.family
    C = family.classes if isinstance(family, Categorical) else problem.y.shape[1]
    shapes = {"W": (E, D, C), "b": (E, C), "U": (Dg, E), "c": (E,)}
    if isinstance(family, Gaussian):
        shapes["var"] = {"expert": (E,), "full": (E, C, C)}.get(family.covariance, ())
    if not isinstance(params, dict) or set(params) != set(shapes):
        got = ", ".join(map(str, params)) if isinstance(params, dict) else repr(params)
        raise checks.InputError(f"{name}: wanted the keys {', '.join(shapes)}; got {got}")
    params = {
        key: checks.array(f"{name}[{key!r}]", params[key], shape) for key, shape in shapes.items()
    }
    var = params.get("var", np.ones(1))
    if not (np.linalg.eigvalsh(var) if var.ndim == 3 else var).min() > 0:
        raise checks.InputError(
            f"{name}['var']: wanted variances above 0, or positive definite covariance matrices"
        )
    return params


def check_case_weight(weight: ArrayN | None, N: int) -> ArrayN | None:
    """`weight` in float64, after checking that it is not negative and not 0 for all cases."""
    if weight is None:
        return None
    weight = check_weight(weight, (N,)).astype(np.float64)
    if not weight.sum() > 0:
        raise checks.InputError("weight: wanted at least one number above 0, got only zeros")
    return weight
