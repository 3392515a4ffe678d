"""Hierarchical gating, two gates one above the other: Shazeer et al. 2017 (arXiv 1701.06538),
appendix B; Jordan and Jacobs 1994 for the hierarchical mixture of experts (HME).

    y_H = Σ_i Σ_j G_primary(x)_i · G_i(x)_j · E_{i,j}(x)                                   (12)
    Importance_H(X)_{i,j} = Σ_x G_primary(x)_i · G_i(x)_j                                  (13)
    Load_H(X)_{i,j} = Load_primary(X)_i · Load_i(X^(i))_j / |X^(i)|                        (14)

    paper            here          shape         meaning
    a, b             a, b                        groups, experts in a group; E = a·b, expert (i, j)
                                                 is i·b + j
    W of G_primary   w_primary     (D, a)
    W of G_i         w_secondary   (D, E)        columns i·b to i·b + b − 1 belong to group i
    –                primary       (N, a)        logits of the groups
    –                secondary     (N, a, b)     logits of the experts in each group
    G_primary(x)_i   outer_weight  (N, k1)       of the k1 chosen groups
    G_i(x)_j         inner_weight  (N, k1, k2)   of the k2 chosen experts in each
    product          weight        (N, k1, k2)

Each level is a top-k softmax gate, renormalised or not by the argument (top_k.py explains both;
Shazeer renormalises). With k1 = a and k2 = b it is the two-level mixture of Jordan and
Jacobs. The routing's logits are primary_i + log softmax(secondary)_ij, whose softmax over all E
leaves is the product of the two full softmaxes. There is no noise here: Load_primary(X)_i is then
the count |X^(i)|, and eq. (14) is the count of tokens at the leaf. So `importance` and `load` of
moe_np/layers/diagnostics.py are eqs. (13) and (14).
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayA, ArrayDE, ArrayN, ArrayND, ArrayNE, DType, Options, Params, Rng
from moe_np.routing import contract, linear_map, stages, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {"k_primary": 2, "k_secondary": 2, "renormalise": True}
EXAMPLE_INIT: Options = {"groups": 2}


class Level(NamedTuple):
    """One top-k softmax gate. Rows are tokens (primary) or pairs of a token and a chosen group
    (secondary), options are groups or experts of a group.
    """

    probs: Annotated[np.ndarray, "rows, options"]
    choice: Annotated[np.ndarray, "rows, k"]
    weight: Annotated[np.ndarray, "rows, k"]


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w_primary: Annotated[np.ndarray, "D, a"]
    w_secondary: ArrayDE
    primary: Annotated[np.ndarray, "N, a"]
    secondary: Annotated[np.ndarray, "N, a, b"]
    inside: Annotated[np.ndarray, "N, a, b"]  # softmax of each group's secondary logits
    outer_choice: Annotated[np.ndarray, "N, k1"]
    outer_weight: Annotated[np.ndarray, "N, k1"]
    inner_choice: Annotated[np.ndarray, "N, k1, k2"]
    inner_weight: Annotated[np.ndarray, "N, k1, k2"]
    weight: Annotated[np.ndarray, "N, k1, k2"]
    outer: Level  # rows N, options a
    inner: Level  # rows N·k1, options b
    renormalise: bool
    valid: ArrayN | None


class LogitsGradient(NamedTuple):
    """The gradients at x·w_primary and x·w_secondary."""

    dprimary: Annotated[np.ndarray, "N, a"]
    dsecondary: ArrayNE


def init(
    rng: Rng,
    d_model: int,
    n_experts: int,
    *,
    groups: int,
    scale: float = 1.0,
    dtype: DType = np.float64,
) -> Params:
    """{"w_primary": (D, groups), "w_secondary": (D, E)}, normal with standard deviation scale/√D.

    Raises InputError where the groups cannot be equally large.
    """
    D, E = contract.check_init(rng, d_model, n_experts, scale, dtype)
    a = checks.integer("groups", groups, maximum=E)
    if E % a:
        raise InputError(f"groups: wanted a divisor of the {E} experts, got {a}")
    shapes = {"w_primary": (D, a), "w_secondary": (D, E)}
    return {
        name: (rng.normal(size=s) * scale / np.sqrt(D)).astype(dtype) for name, s in shapes.items()
    }


def route(
    params: Params,
    x: ArrayND,
    *,
    k_primary: int,
    k_secondary: int,
    renormalise: bool,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to k_secondary experts in each of k_primary groups: x (N, D) -> (Routing,
    cache), A = k1·k2·N. No noise.

    Raises InputError for a renormalised level with one choice of several: its gate would learn
    nothing from the task.
    """
    axes = {"w_primary": ("D", "a"), "w_secondary": ("D", "E")}
    x, w_primary, w_secondary = contract.check_inputs(params, x, axes)
    N, a = len(x), w_primary.shape[1]
    E = w_secondary.shape[1]
    if E % a or not E:
        raise InputError(
            f"params['w_secondary']: wanted equally many experts for {a} groups, got {E} in all"
        )
    shape = N, k_primary, k_secondary
    _check_level("k_primary", k_primary, a, renormalise)
    _check_level("k_secondary", k_secondary, E // a, renormalise)
    contract.check_training(training, rng)
    valid = contract.check_padding(valid, N)
    primary = linear_map.linear(x, w_primary, "w_primary")
    secondary = linear_map.linear(x, w_secondary, "w_secondary").reshape(N, a, E // a)
    inside = numerics.softmax(secondary)
    outer = level_forward(primary, k_primary, renormalise)
    chosen = np.take_along_axis(secondary, outer.choice[:, :, None], axis=1)  # (N, k1, b)
    inner = level_forward(chosen.reshape(N * k_primary, E // a), k_secondary, renormalise)
    inner_choice, inner_weight = inner.choice.reshape(shape), inner.weight.reshape(shape)
    weight = outer.weight[:, :, None] * inner_weight
    choice = (outer.choice[:, :, None] * (E // a) + inner_choice).reshape(
        N, k_primary * k_secondary
    )
    rows = weighting.rows(choice, weight.reshape(choice.shape), valid)
    logits = (primary[:, :, None] + numerics.log_softmax(secondary)).reshape(N, E)
    demand = contract.demand_of(choice, E, valid)
    products = x, w_primary, w_secondary, primary, secondary, inside
    shown = outer.choice, outer.weight, inner_choice, inner_weight, weight
    cache = Cache(*products, *shown, outer, inner, renormalise, valid)
    return Routing(*rows, logits, numerics.softmax(logits), demand), cache


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> LogitsGradient:
    """dweight (A,), dlogits (N, E) or None -> the gradients at both products. Both choices are
    held; dlogits is that of primary_i + log softmax(secondary)_ij.
    """
    N, a, b = cache.inside.shape
    _, k1, k2 = cache.weight.shape
    dproduct = weighting.rows_backward(dweight, (N, k1 * k2), cache.valid).reshape(N, k1, k2)
    douter = (dproduct * cache.inner_weight).sum(axis=2)
    dinner = (dproduct * cache.outer_weight[:, :, None]).reshape(N * k1, k2)
    dprimary = level_backward(douter, cache.outer, cache.renormalise)
    dchosen = level_backward(dinner, cache.inner, cache.renormalise).reshape(N, k1, b)
    dsecondary = np.zeros_like(cache.inside)
    np.put_along_axis(dsecondary, cache.outer_choice[:, :, None], dchosen, axis=1)
    if dlogits is not None:
        dlogits = weighting.check_dlogits(dlogits, (N, a * b))
        dleaf = weighting.without_padding(dlogits, cache.valid).reshape(N, a, b)
        total = dleaf.sum(axis=2)
        dprimary = dprimary + total
        dsecondary = dsecondary + dleaf - cache.inside * total[:, :, None]
    return LogitsGradient(dprimary, dsecondary.reshape(N, a * b))


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w_primary", "w_secondary"}. Both choices
    are held.
    """
    dprimary, dsecondary = logits_backward(dweight, dlogits, cache)
    dx_primary, dw_primary = linear_map.linear_backward(dprimary, cache.x, cache.w_primary)
    dx_secondary, dw_secondary = linear_map.linear_backward(dsecondary, cache.x, cache.w_secondary)
    return dx_primary + dx_secondary, {"w_primary": dw_primary, "w_secondary": dw_secondary}


# --- one level ------------------------------------------------------------------------------------


def level_forward(
    logits: Annotated[np.ndarray, "rows, options"], k: int, renormalise: bool
) -> Level:
    """A top-k softmax gate over the options."""
    probs = numerics.softmax(logits)
    choice = contract.top_k(logits, k)
    if renormalise:
        return Level(probs, choice, weighting.renormalised(logits, choice))
    return Level(probs, choice, np.take_along_axis(probs, choice, axis=1))


def level_backward(
    dweight: Annotated[np.ndarray, "rows, k"], level: Level, renormalise: bool
) -> Annotated[np.ndarray, "rows, options"]:
    """dweight -> dlogits. The choice is held."""
    probs, choice, weight = level
    if renormalise:
        return weighting.renormalised_backward(dweight, weight, choice, probs.shape[1])
    return weighting.probs_backward(dweight, np.arange(len(choice))[:, None], choice, probs)


def _check_level(name, k, n_options, renormalise):
    checks.boolean("renormalise", renormalise)
    if checks.integer(name, k) > n_options:
        raise InputError(f"{name}: wanted at most the {n_options} there are, got {k}")
    if renormalise and k == 1 < n_options:
        raise InputError(
            f"{name}: wanted at least 2 with renormalise=True, got 1: "
            "its weight is then 1 and the gate learns nothing"
        )


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    Stage(
        "groups",
        r"\mathrm{primary} = x w_\mathrm{primary}",
        {"primary": "N a"},
        "A logit for each group.",
    ),
    Stage(
        "chosen groups",
        "",
        {"outer_choice": "N k1", "outer_weight": "N k1"},
        "The choice and the weights of the upper gate.",
    ),
    Stage(
        "inside",
        r"\mathrm{secondary} = x w_\mathrm{secondary}",
        {"secondary": "N a b"},
        "A logit for each expert of each group.",
    ),
    Stage(
        "chosen experts",
        "",
        {"inner_choice": "N k1 k2", "inner_weight": "N k1 k2"},
        "The choice and the weights of the lower gate, in each chosen group.",
    ),
    Stage(
        "weights",
        r"\mathrm{weight} = \mathrm{outer\_weight} \cdot \mathrm{inner\_weight}",
        {"weight": "N k1 k2"},
        "Eq. 12.",
    ),
    Stage(
        "all experts",
        r"\mathrm{logits}_{ij} = \mathrm{primary}_i + "
        r"\log \mathrm{softmax}(\mathrm{secondary}_i)_j",
        {"logits": "N E", "probs": "N E", "demand": "N E"},
        "Of every expert, as if there were one gate: what a load-balancing loss looks at.",
    ),
)
BACKWARD: tuple[Stage, ...] = (
    Stage("logits", "", {"dprimary": "N a", "dsecondary": "N E"}, stages.HELD),
    Stage(
        "parameters and tokens",
        r"dw_\mathrm{primary} = x^\top d\mathrm{primary}, \quad "
        r"dw_\mathrm{secondary} = x^\top d\mathrm{secondary}",
        {"dx": "N D", "dw_primary": "D a", "dw_secondary": "D E"},
        stages.BELOW,
    ),
)
