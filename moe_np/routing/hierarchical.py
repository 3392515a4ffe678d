"""Two gates, one above the other: Shazeer et al. 2017 (arXiv 1701.06538), appendix B; Jordan and
Jacobs 1994.

    y_H = Σ_i Σ_j G_primary(x)_i · G_i(x)_j · E_{i,j}(x)                                   (12)
    Importance_H(X)_{i,j} = Σ_x G_primary(x)_i · G_i(x)_j                                  (13)
    Load_H(X)_{i,j} = Load_primary(X)_i · Load_i(X^(i))_j / |X^(i)|                        (14)

    paper            here            shape         meaning
    a, b             a, b                          groups, experts in a group; E = a·b, expert (i, j) is i·b + j
    W of G_primary   w_primary       (D, a)
    W of G_i         w_secondary     (D, E)        columns i·b to i·b + b − 1 belong to group i
    G_primary(x)_i   outer           (N, k1)       of the k1 chosen groups
    G_i(x)_j         inner           (N, k1, k2)   of the k2 chosen experts in each
    product          weight          (N, k1, k2)

Each level is a top-k softmax gate, renormalised or not as the argument says (top_k.py explains
both; Shazeer renormalises). With k1 = a and k2 = b it is the two-level mixture of Jordan and
Jacobs. The routing's logits are primary_i + log softmax(secondary)_ij, whose softmax over all E
leaves is the product of the two full softmaxes. There is no noise here: Load_primary(X)_i is then
the count |X^(i)|, and eq. (14) is the count of tokens at the leaf.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Gate(NamedTuple):
    """One level: rows are tokens (primary) or tokens and groups (secondary), options are groups or
    experts.
    """

    probs: np.ndarray  # (rows, options)
    choice: np.ndarray  # (rows, k)
    weight: np.ndarray  # (rows, k)


class Cache(NamedTuple):
    x: np.ndarray
    w_primary: np.ndarray
    w_secondary: np.ndarray
    inside: np.ndarray  # (N, a, b) softmax of each group's secondary logits
    outer: Gate  # rows N, options a
    inner: Gate  # rows N·k1, options b
    renormalise: bool
    valid: np.ndarray | None  # (N,) bool


def init(rng, d_model, n_experts, *, groups, scale=1.0, dtype=np.float64):
    """{"w_primary": (D, groups), "w_secondary": (D, E)}, normal with standard deviation scale/√D."""
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts)
    a = checks.integer("groups", groups, maximum=E)
    if E % a:
        raise InputError(f"groups: wanted a divisor of the {E} experts, got {a}")
    shapes = {"w_primary": (D, a), "w_secondary": (D, E)}
    return {
        name: (rng.normal(size=s) * scale / np.sqrt(D)).astype(dtype) for name, s in shapes.items()
    }


def route(params, x, *, k_primary, k_secondary, renormalise, valid=None, training=None, rng=None):
    """Send each token to k_secondary experts in each of k_primary groups: x (N, D) -> (Routing,
    cache), A = k1·k2·N.

    Raises InputError for a renormalised level with one choice of several: its gate would learn
    nothing from the task.
    """
    x = contract.check_tokens(x, params, "w_primary")
    a, E = params["w_primary"].shape[1], params["w_secondary"].shape[1]
    b, N = E // a, len(x)
    _check_level("k_primary", k_primary, a, renormalise)
    _check_level("k_secondary", k_secondary, b, renormalise)
    contract.check_training(training, rng)
    valid = None if valid is None else contract.check_valid(valid, N)
    primary, secondary = x @ params["w_primary"], (x @ params["w_secondary"]).reshape(N, a, b)
    outer = _gate(primary, k_primary, renormalise)
    chosen = np.take_along_axis(secondary, outer.choice[:, :, None], axis=1)  # (N, k1, b)
    inner = _gate(chosen.reshape(N * k_primary, b), k_secondary, renormalise)
    weight = outer.weight[:, :, None] * inner.weight.reshape(N, k_primary, k_secondary)
    expert = outer.choice[:, :, None] * b + inner.choice.reshape(weight.shape)
    logits = (primary[:, :, None] + numerics.log_softmax(secondary)).reshape(N, E)
    inside = numerics.softmax(secondary)
    choice = expert.reshape(N, k_primary * k_secondary)
    token, expert, row_weight = contract.rows(choice, weight.reshape(choice.shape), valid)
    demand = contract.demand_of(choice, E)
    if valid is not None:
        demand &= valid[:, None]
    routing = Routing(token, expert, row_weight, logits, numerics.softmax(logits), demand)
    return routing, Cache(
        x, params["w_primary"], params["w_secondary"], inside, outer, inner, renormalise, valid
    )


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w_primary", "w_secondary"}. Both choices
    are held.
    """
    N, a, b = cache.inside.shape
    outer, inner = cache.outer, cache.inner
    k1, k2 = outer.choice.shape[1], inner.choice.shape[1]
    dweight = contract.rows_backward(dweight, (N, k1 * k2), cache.valid).reshape(N, k1, k2)
    douter = (dweight * inner.weight.reshape(N, k1, k2)).sum(axis=2)
    dinner = (dweight * outer.weight[:, :, None]).reshape(N * k1, k2)
    dprimary = _gate_backward(douter, outer, cache.renormalise)
    dsecondary = np.zeros_like(cache.inside)
    dchosen = _gate_backward(dinner, inner, cache.renormalise).reshape(N, k1, b)
    np.put_along_axis(dsecondary, outer.choice[:, :, None], dchosen, axis=1)
    if dlogits is not None and cache.valid is not None:
        dlogits = np.where(cache.valid[:, None], dlogits, 0)
    if dlogits is not None:  # of primary_i + log softmax(secondary)_ij
        dleaf = dlogits.reshape(N, a, b)
        total = dleaf.sum(axis=2)
        dprimary = dprimary + total
        dsecondary = dsecondary + dleaf - cache.inside * total[:, :, None]
    dx1, dw1 = contract.linear_backward(dprimary, cache.x, cache.w_primary)
    dx2, dw2 = contract.linear_backward(dsecondary.reshape(N, a * b), cache.x, cache.w_secondary)
    return dx1 + dx2, {"w_primary": dw1, "w_secondary": dw2}


def importance_and_load(routing):
    """Eqs. (13) and (14) without noise: -> the summed weights and the number of tokens of each
    leaf, both (E,).
    """
    E = routing.probs.shape[1]
    importance = np.bincount(routing.expert, weights=routing.weight, minlength=E).astype(
        routing.weight.dtype
    )
    return importance, np.bincount(routing.expert, minlength=E)


def _check_level(name, k, options, renormalise):
    if checks.integer(name, k) > options:
        raise InputError(f"{name}: wanted at most the {options} there are, got {k}")
    if renormalise and k == 1 < options:
        raise InputError(
            f"{name}: wanted at least 2 with renormalise=True, got 1: its weight is then 1 and the gate learns nothing"
        )


def _gate(logits, k, renormalise):
    """logits (rows, options) -> Gate."""
    probs, choice = numerics.softmax(logits), contract.top_k(logits, k)
    weight = np.take_along_axis(probs, choice, axis=1)
    if renormalise:
        weight = numerics.softmax(np.take_along_axis(logits, choice, axis=1))
    return Gate(probs, choice, weight)


def _gate_backward(dweight, gate, renormalise):
    """dweight (rows, k) -> dlogits (rows, options)."""
    spread = np.zeros_like(gate.probs)
    if renormalise:
        np.put_along_axis(
            spread, gate.choice, numerics.softmax_backward(dweight, gate.weight), axis=1
        )
        return spread
    np.put_along_axis(spread, gate.choice, dweight, axis=1)
    return numerics.softmax_backward(spread, gate.probs)
