"""Balance by a bias, not a loss: DeepSeek-V3 (arXiv 2412.19437, section 2.1.2), Wang et al. 2024
(arXiv 2408.15664).

    DeepSeek-V3            here       shape     meaning
    e_i                    w[:, i]    (D, E)    centroid of expert i
    u_t·e_i                logits     (N, E)
    s_i,t  (eq. 15)        probs      (N, E)    sigmoid(logits): the rows do not sum to 1
    b_i                    bias       (E,)      not learned by gradient
    Topk(s + b)  (eq. 16)  choice     (N, k)    the bias enters here
    g_i,t  (eqs. 13, 14)   weight     (N, k)    and not here (errata 19): s of the chosen, divided by their sum
    γ                      speed                step of the bias

The bias only says who is chosen; what a chosen expert counts is its own score, so balancing adds
nothing to the gradient. After a step b_i rises by γ where expert i got fewer tokens than the mean
and falls by γ where it got more: a comparison of counts with counts (`update_bias`).

Renormalised s_i/Σ s_j is a softmax over the chosen log s, which is how it is computed: sigmoids
that underflow would give 0/0. Wang et al. do not renormalise, DeepSeek-V3 does; the argument has no
default. `routed_scale` multiplies the weights (2.5 in DeepSeek-V3's configuration: routed_scaling_factor).

Groups (node-limited routing, section 2.1.2): experts in n_group blocks of equal size; a block's
score is the sum of its best k/topk_group values of s + b (2 in DeepSeek-V3: 8 experts from 4 of 8
groups; public code fixes it at 2, hence `group_best`), and only the topk_group best blocks take
part. The others are masked by −inf: with 0, as public code has it, a masked expert would beat a
negative s + b.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract, top_k
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    logits: np.ndarray  # (N, E)
    choice: np.ndarray  # (N, k)
    share: np.ndarray  # (N, k) the weights before `routed_scale`
    renormalise: bool
    routed_scale: float
    valid: np.ndarray | None  # (N,) bool


def init(rng, d_model, n_experts, *, scale=1.0, dtype=np.float64):
    """{"w": (D, E), "bias": (E,)}: normal with standard deviation scale/√D, and a bias of 0."""
    params = top_k.init(rng, d_model, n_experts, scale=scale, dtype=dtype)
    return {**params, "bias": np.zeros(n_experts, dtype)}


def best_groups(scores, n_group, topk_group, group_best):
    """−inf outside the topk_group blocks with the largest sum of their group_best best scores. (N,
    E) -> (N, E)
    """
    N, E = scores.shape
    groups = scores.reshape(N, n_group, E // n_group)
    best = np.sort(groups, axis=2)[:, :, -group_best:].sum(axis=2)
    kept = contract.demand_of(contract.top_k(best, topk_group), n_group)
    return np.where(kept[:, :, None], groups, -np.inf).reshape(N, E)


def check_groups(n_experts, k, n_group, topk_group, group_best):
    """Check that the groups are equal and the kept ones have k experts; return group_best, or else
    k/topk_group.
    """
    checks.integer("n_group", n_group)
    if n_experts % n_group:
        raise InputError(f"n_group: wanted a divisor of the {n_experts} experts, got {n_group}")
    size = n_experts // n_group
    checks.integer("topk_group", topk_group, maximum=n_group)
    if k > topk_group * size:
        raise InputError(
            f"k: wanted at most the {topk_group * size} experts of {topk_group} groups, got {k}"
        )
    return checks.integer(
        "group_best", max(1, k // topk_group) if group_best is None else group_best, maximum=size
    )


def route(
    params,
    x,
    *,
    k,
    renormalise,
    routed_scale=1.0,
    n_group=1,
    topk_group=1,
    group_best=None,
    valid=None,
    training=None,
    rng=None,
):
    """Send each token to its k largest s + b: x (N, D) -> (Routing with A = k·N, cache). `rng` is
    not used.
    """
    x, w, bias = contract.check_tokens(x, params), params["w"], params["bias"]
    E = w.shape[1]
    k = contract.check_k(k, E)
    contract.check_renormalise(renormalise, k)
    contract.check_training(training, rng)
    valid = None if valid is None else contract.check_valid(valid, len(x))
    logits = x @ w
    probs = numerics.sigmoid(logits)
    scores = probs + bias
    group_best = check_groups(E, k, n_group, topk_group, group_best)
    if n_group > 1:
        scores = best_groups(scores, n_group, topk_group, group_best)
    choice = contract.top_k(scores, k)
    if renormalise:
        share = numerics.softmax(
            -numerics.softplus(-np.take_along_axis(logits, choice, axis=1))
        )  # of log s
    else:
        share = np.take_along_axis(probs, choice, axis=1)
    token, expert, row_share = contract.rows(choice, share, valid)
    demand = contract.demand_of(choice, E)
    if valid is not None:
        demand &= valid[:, None]
    routing = Routing(token, expert, routed_scale * row_share, logits, probs, demand)
    return routing, Cache(x, w, logits, choice, share, renormalise, routed_scale, valid)


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w", "bias"}. The choice is held, so
    dbias is 0.
    """
    dx, dw = contract.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw, "bias": np.zeros(cache.w.shape[1], cache.w.dtype)}


def logits_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The choice is held."""
    logits, choice, share, valid = cache.logits, cache.choice, cache.share, cache.valid
    dshare = cache.routed_scale * contract.rows_backward(dweight, choice.shape, valid)
    chosen = np.take_along_axis(logits, choice, axis=1)
    if cache.renormalise:
        dchosen = numerics.softmax_backward(dshare, share) * numerics.sigmoid(
            -chosen
        )  # d log s = (1 − s) d logit
    else:
        dchosen = numerics.sigmoid_backward(dshare, share)
    spread = np.zeros_like(logits)
    np.put_along_axis(spread, choice, dchosen, axis=1)
    return contract.with_dlogits(spread, dlogits, valid)


def update_bias(params, routing, *, speed=1e-3, valid=None):
    """b_i ← b_i + speed · sign(mean count − count_i), from what was asked before capacity. Returns
    new params.

    Padding (valid[n] = False) is not counted. An expert at the mean keeps its bias.
    """
    valid = contract.check_valid(valid, len(routing.demand))
    count = routing.demand[valid].sum(axis=0)
    push = np.sign(
        count.sum() - count * len(count)
    )  # whole numbers: the mean itself may not be one
    return {**params, "bias": params["bias"] + (speed * push).astype(params["bias"].dtype)}
