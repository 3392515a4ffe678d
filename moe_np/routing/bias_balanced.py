"""Balance by a bias in place of a load-balancing loss: DeepSeek-V3 (arXiv 2412.19437, section
2.1.2), Wang et al. 2024 (arXiv 2408.15664).

    DeepSeek-V3            here       shape     meaning
    e_i                    w[:, i]    (D, E)    centroid of expert i
    u_t·e_i                logits     (N, E)
    s_i,t  (eq. 15)        probs      (N, E)    sigmoid(logits): the rows do not sum to 1
    b_i                    bias       (E,)      not learned by gradient
    s + b                  scores     (N, E)    −inf outside the best groups
    Topk(s + b)  (eq. 16)  choice     (N, k)    the bias enters here
    g_i,t  (eqs. 13, 14)   share      (N, k)    and not here (errata 19): s of the chosen, divided
                                                by their sum
    –                      weight     (N, k)    routed_scale · share
    γ                      speed                the change of the bias after a step

The bias enters the choice only; the weight of a chosen expert comes from its score alone, so
balancing adds nothing to the gradient. After a step b_i rises by γ where expert i got fewer tokens
than the mean and falls by γ where it got more: a comparison of counts with counts (`update_bias`).

Renormalised s_i/Σ s_j is a softmax over the chosen log s, which is how it is computed: sigmoids
that underflow would give 0/0. Wang et al. do not renormalise, DeepSeek-V3 does; the argument has no
default. `routed_scale` multiplies the weights (2.5 in DeepSeek-V3's configuration:
routed_scaling_factor).

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
from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayN,
    ArrayND,
    ArrayNE,
    ArrayNK,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, stages, top_k, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {"k": 2, "renormalise": True}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    logits: ArrayNE
    scores: ArrayNE
    choice: ArrayNK
    share: ArrayNK  # the weights before routed_scale
    renormalise: bool
    routed_scale: float
    valid: ArrayN | None


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E), "bias": (E,)}: normal with standard deviation scale/√D, and a bias of 0."""
    params = top_k.init(rng, d_model, n_experts, scale=scale, dtype=dtype)
    return {**params, "bias": np.zeros(n_experts, dtype)}


def best_groups(scores: ArrayNE, n_group: int, topk_group: int, group_best: int) -> ArrayNE:
    """−inf outside the topk_group blocks with the largest sum of their group_best best scores. (N,
    E) -> (N, E)
    """
    N, E = scores.shape
    groups = scores.reshape(N, n_group, E // n_group)
    group_score = np.sort(groups, axis=2)[:, :, -group_best:].sum(axis=2)
    kept = contract.demand_of(contract.top_k(group_score, topk_group), n_group)
    return np.where(kept[:, :, None], groups, -np.inf).reshape(N, E)


def best(scores: ArrayNE, logits: ArrayNE, k: int) -> ArrayNK:
    """The k largest scores of each token (N, k), best first.

    A sigmoid near 0 or 1 and a bias add up to equal scores where the sigmoids differ by less than
    rounding: among equal scores the larger logit is taken, then the lowest index.
    """
    choice = contract.top_k(scores, k)
    falling = -np.sort(-scores, axis=1)
    tied = (falling[:, 1:] == falling[:, :-1])[:, :k].any(axis=1)
    if tied.any():
        choice[tied] = np.lexsort((-logits[tied], -scores[tied]), axis=1)[:, :k]
    return choice


def check_groups(
    n_experts: int, k: int, n_group: int, topk_group: int, group_best: int | None
) -> int:
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
    group_best = max(1, k // topk_group) if group_best is None else group_best
    return checks.integer("group_best", group_best, maximum=size)


def route(
    params: Params,
    x: ArrayND,
    *,
    k: int,
    renormalise: bool,
    routed_scale: float = 1.0,
    n_group: int = 1,
    topk_group: int = 1,
    group_best: int | None = None,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its k largest s + b: x (N, D) -> (Routing with A = k·N, cache). No noise.

    Raises InputError for k = 1 renormalised and for groups that do not fit.
    """
    x, w, bias = contract.check_inputs(params, x, {"w": ("D", "E"), "bias": ("E",)})
    k = contract.check_k(k, w.shape[1])
    contract.check_renormalise(renormalise, k)
    contract.check_training(training, rng)
    routed_scale = checks.number("routed_scale", routed_scale)
    valid = contract.check_padding(valid, len(x))
    logits = linear_map.linear(x, w)
    probs = numerics.sigmoid(logits)
    scores = probs + bias
    group_best = check_groups(w.shape[1], k, n_group, topk_group, group_best)
    if n_group > 1:
        scores = best_groups(scores, n_group, topk_group, group_best)
    choice = best(scores, logits, k)
    if renormalise:
        log_s = -numerics.softplus(-np.take_along_axis(logits, choice, axis=1))
        share = numerics.softmax(log_s)
    else:
        share = np.take_along_axis(probs, choice, axis=1)
    token, expert, row_share = weighting.rows(choice, share, valid)
    demand = contract.demand_of(choice, w.shape[1], valid)
    routing = Routing(token, expert, routed_scale * row_share, logits, probs, demand)
    return routing, Cache(x, w, logits, scores, choice, share, renormalise, routed_scale, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The choice is held."""
    choice, share = cache.choice, cache.share
    dshare = cache.routed_scale * weighting.rows_backward(dweight, choice.shape, cache.valid)
    chosen = np.take_along_axis(cache.logits, choice, axis=1)
    if cache.renormalise:
        dlog_s = numerics.softmax_backward(dshare, share)
        dchosen = dlog_s * numerics.sigmoid(-chosen)  # d log s = (1 − s) d logit
    else:
        dchosen = numerics.sigmoid_backward(dshare, share)
    dscore = np.zeros_like(cache.logits)
    np.put_along_axis(dscore, choice, dchosen, axis=1)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w", "bias"}. The choice is held, so
    dbias is 0.
    """
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw, "bias": np.zeros(cache.w.shape[1], cache.w.dtype)}


def update_bias(
    params: Params, routing: Routing, *, speed: float = 1e-3, valid: ArrayN | None = None
) -> Params:
    """b_i ← b_i + speed · sign(mean count − count_i), from what was asked before capacity. Returns
    new params.

    speed is γ, DeepSeek-V3's bias update speed. Padding (valid[n] = False) is not counted. An
    expert at the mean keeps its bias. Raises InputError where speed is so small, or the bias so
    large, that the change would be lost to rounding (in half precision above 2).
    """
    routing = contract.check_routing(routing)
    speed = checks.number("speed", speed)
    bias = checks.params("params", params, {"bias": (routing.demand.shape[1],)})["bias"]
    valid = contract.check_valid(valid, len(routing.demand))
    count = routing.demand[valid].sum(axis=0)
    # in whole numbers, as the mean itself may not be one
    direction = np.sign(count.sum() - count * len(count))
    new = bias + (speed * direction).astype(bias.dtype)
    if speed and ((new == bias) & (direction != 0)).any():
        raise InputError(
            f"params['bias']: wanted numbers that {bias.dtype} can change by {speed:g}, got "
            f"{np.abs(bias).max()}: the change is lost to rounding"
        )
    return {**params, "bias": new}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SIGMOID,
    Stage(
        "with the bias",
        r"\mathrm{scores} = \mathrm{probs} + \mathrm{bias}",
        {"scores": "N E"},
        "−∞ outside the best groups.",
    ),
    stages.largest("scores", "The bias enters the choice, and nothing else."),
    Stage(
        "shares",
        r"\mathrm{share} = \mathrm{probs}_\mathrm{chosen} \big/ "
        r"\sum \mathrm{probs}_\mathrm{chosen}",
        {"share": "N k"},
        "Without the bias.",
        when=("renormalise", True),
    ),
    Stage(
        "shares",
        r"\mathrm{share} = \mathrm{probs}_\mathrm{chosen}",
        {"share": "N k"},
        "Without the bias.",
        when=("renormalise", False),
    ),
)
BACKWARD: tuple[Stage, ...] = (
    Stage(
        "logits",
        r"d\mathrm{logits}_{ni} = s_i (ds_i - \textstyle\sum_j s_j ds_j) (1 - p_i) "
        r"\text{ if chosen}, \quad s = \mathrm{share}_n, \; p = \mathrm{probs}_n",
        stages.DLOGITS,
        stages.HELD,
        when=("renormalise", True),
    ),
    stages.THROUGH_SIGMOID._replace(when=("renormalise", False)),
    stages.LINEAR_BACKWARD._replace(arrays={"dx": "N D", "dw": "D E", "dbias": "E"}),
)
