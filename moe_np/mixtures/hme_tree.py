"""The tree of a hierarchical mixture of experts (HME): shape, initialisation, subtrees, validation.

    here        shape            meaning
    U{l}, c{l}  (D, P, b), (P, b)  the P gating networks on level l, with b branches each
    W, b        (E, D, C), (E, C)  the experts at the leaves
    var         (), (E,) or (E, C, C)  variances of Gaussian experts; absent for categorical experts

Levels count from 1, the top gate. P gates with b branches make P·b gates (or experts) on the next
level. A branch that an uneven tree does not have has c = −inf, so its gate is exactly 0. hme.py has
the equations.
"""

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, Params, Rng

COVARIANCES = ("shared", "expert", "full", None)


def depth(params: Params) -> int:
    """The number of levels of gates."""
    return sum(name.startswith("U") for name in params)


def branching(params: Params) -> tuple[int, ...]:
    """(b1, b2, ...): the number of branches of a gate on each level."""
    return tuple(params[f"c{level}"].shape[1] for level in range(1, depth(params) + 1))


def init(
    rng: Rng,
    tree: tuple[int, ...],
    D: int,
    C: int,
    *,
    init_range: float = 0.05,
    var: float = 1.0,
    covariance: str | None = "shared",
) -> Params:
    """Weights and biases of gates and experts, uniform in ±init_range.

    Siblings that begin equal stay equal, so nothing begins at 0. The range is for inputs of size 1:
    gates that begin saturated stay so, since their posteriors then equal their priors.

    tree        branches of a gate on each level: (2, 2, 2, 2) is a binary tree with 16 experts,
                (16,) a mixture with one gate
    var         initial variance of Gaussian experts
    covariance  "shared" one variance, "expert" one per expert, "full" one covariance matrix per
                expert; None: categorical experts
    """
    checks.generator("rng", rng)
    checks.choice("covariance", covariance, COVARIANCES)
    init_range = checks.number("init_range", init_range, minimum=0)
    var = checks.number("var", var, greater_than=0)
    D = checks.size("D", D)
    C = checks.size("C", C)
    if not isinstance(tree, (tuple, list)) or not tree:
        raise checks.InputError(
            f"tree: wanted numbers of branches, one per level, such as (2, 2); got {tree!r}"
        )
    P = 1
    params = {}
    for level, branches in enumerate(tree, start=1):
        branches = checks.integer(f"tree[{level - 1}]", branches)
        params[f"U{level}"] = rng.uniform(-init_range, init_range, (D, P, branches))
        params[f"c{level}"] = rng.uniform(-init_range, init_range, (P, branches))
        P *= branches
    params["W"] = rng.uniform(-init_range, init_range, (P, D, C))
    params["b"] = rng.uniform(-init_range, init_range, (P, C))
    if covariance == "shared":
        params["var"] = np.array(var)
    elif covariance == "expert":
        params["var"] = np.full(P, var)
    elif covariance == "full":
        params["var"] = np.tile(var * np.eye(C), (P, 1, 1))
    return params


def subtree(params: Params, branch: int) -> Params:
    """The parameters below one branch of the top gate: a tree one level lower, or one expert."""
    branches = params["c1"].shape[1]
    out = {}
    for name, value in params.items():
        if name[0] in "Uc":
            level = int(name[1:])
            axis = 1 if name[0] == "U" else 0
            if level > 1:
                out[f"{name[0]}{level - 1}"] = np.split(value, branches, axis)[branch]
        else:
            out[name] = np.split(value, branches)[branch] if value.ndim else value
    return out


def join(U: Array, c: Array, parts: list[Params]) -> Params:
    """The tree with the gate U (D, b), c (b,) on top of b trees of the same shape, or b experts."""
    out = {"U1": U[:, None, :], "c1": c[None, :]}
    for name, value in parts[0].items():
        values = [part[name] for part in parts]
        if name[0] in "Uc":
            axis = 1 if name[0] == "U" else 0
            out[f"{name[0]}{int(name[1:]) + 1}"] = np.concatenate(values, axis)
        else:
            out[name] = np.concatenate(values) if value.ndim else value
    return out


# --- Input validation -----------------------------------------------------------------------------


def check(params: Params, x: ArrayND, y: ArrayNC | ArrayN) -> tuple[Params, Array, Array]:
    """(params, x, y) as arrays, after checking that their shapes fit together.

    Raises InputError also for numbers that are not finite, variances that are not positive, and
    labels outside 0, ..., C − 1.
    """
    x = checks.array("x", x, ("N", "D"))
    N, D = x.shape
    if N == 0:
        raise checks.InputError(f"x: wanted at least one case, got shape (0, {D})")
    if not isinstance(params, dict):
        raise checks.InputError(f"params: wanted a dict of arrays, got {type(params).__name__}")
    shapes = _shapes(params, D)
    if set(params) != set(shapes):
        got = ", ".join(map(str, params))
        raise checks.InputError(f"params: wanted the keys {', '.join(shapes)}; got {got}")
    params = {
        name: checks.array(f"params[{name!r}]", params[name], shape, finite=name[0] != "c")
        for name, shape in shapes.items()
    }
    var = params.get("var", np.ones(1))
    if not (np.linalg.eigvalsh(var) if var.ndim == 3 else var).min() > 0:
        raise checks.InputError(
            "params['var']: wanted variances above 0, or positive definite matrices"
        )
    C = params["b"].shape[1]
    if "var" in params:
        return params, x, checks.array("y", y, (N, C))
    y = checks.array("y", y, (N,), kind="i")
    if not ((y >= 0) & (y < C)).all():
        raise checks.InputError(f"y: wanted labels from 0 to {C - 1}, got {y.min()} to {y.max()}")
    return params, x, y


def _shapes(params, D):
    """{name: shape} of all parameters, from the shapes of c1, c2, ..., b and var."""
    shapes = {}
    P = 1
    for level in range(1, max(depth(params), 1) + 1):
        U = f"U{level}"
        c = f"c{level}"
        if c not in params or U not in params:
            raise checks.InputError(f"params: wanted {U} and {c}, got {', '.join(params)}")
        values = checks.array(f"params[{c!r}]", params[c], (P, "b"), finite=False)
        if not _is_bias_of_gates(values):
            raise checks.InputError(
                f"params[{c!r}]: wanted numbers, or −inf for branches that are not there"
            )
        shapes |= {U: (D, P, values.shape[1]), c: values.shape}
        P *= values.shape[1]
    C = checks.array("params['b']", params.get("b"), (P, "C")).shape[1]
    shapes |= {"W": (P, D, C), "b": (P, C)}
    if "var" in params:
        shapes["var"] = {0: (), 1: (P,)}.get(np.ndim(params["var"]), (P, C, C))
    return shapes


def _is_bias_of_gates(c):
    """Whether every gate has a finite number, and no number is NaN or +inf."""
    if not c.size or np.isnan(c).any():
        return False
    return bool((np.isfinite(c).any(axis=1) & (c < np.inf).all(axis=1)).all())
