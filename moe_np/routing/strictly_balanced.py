"""Strictly balanced gate, experts get equally many tokens: Shazeer et al. 2017 (arXiv 1701.06538),
appendix F.

    G_σ(x) = Softmax(x·W_g)                                                                (15)
    G(x)_i = G_σ(x)_i M(G_σ(x))_i / Σ_j G_σ(x)_j M(G_σ(x))_j                               (16)
    M_batchwise(X, m)_ji = 1 if X_ji is among the m largest of expert i, m = k|X|/n        (18)
    M_threshold(x, T)_i = 1 if x_i > T_i                                                   (19)
    L_batchwise(X, T, m) = Σ_j Σ_i (M_threshold(x, T)_i − M_batchwise(X, m)_ji) (X_ji − T_i)   (20)

    paper            here        shape     meaning
    W_g              w           (D, E)    router matrix
    T                threshold   (E,)      what a probability has to exceed at evaluation
    X = G_σ          probs       (N, E)
    M                kept        (N, E)    bool
    G                weight      (N, E)    0 where not kept; the rows of kept experts are the
                                           assignments
    m                m                     tokens that an expert takes, ceil(k·N/E)
    n, |X|           E, N

The experts choose, five years before expert choice (Zhou et al. 2022): a token gets k experts on
average, and may get none. The batchwise mask, used in training, compares tokens with each other, so
a token's experts depend on later tokens; the threshold mask, used in evaluation, looks at one token
alone, and eq. (20) is what makes it learn the batchwise one. A token with a single expert has
weight 1 and sends no gradient to the gate.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayE,
    ArrayN,
    ArrayND,
    ArrayNE,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, stages, top_k, weighting
from moe_np.routing.contract import BalanceLoss, Routing, Stage

CAUSAL = False  # in training
EXAMPLE: Options = {"k": 2}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    threshold: ArrayE
    logits: ArrayNE
    probs: ArrayNE
    kept: ArrayNE  # bool
    weight: ArrayNE
    m: int  # tokens that an expert takes in training
    training: bool
    valid: ArrayN


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E), "threshold": (E,)}: w normal with standard deviation scale/√D, thresholds 1/E
    (our choice).
    """
    params = top_k.init(rng, d_model, n_experts, scale=scale, dtype=dtype)
    return {**params, "threshold": np.full(n_experts, 1 / n_experts, dtype)}


def route(
    params: Params,
    x: ArrayND,
    *,
    k: int,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Keep, of all token-expert pairs, those of the mask: x (N, D) -> (Routing, cache). No noise.

    k          experts that a token gets on average; a fraction in k·N/E is rounded up, and a tie
               goes to the earlier token
    training   True: the batchwise mask of eq. (18); False: the threshold mask of eq. (19)
    """
    x, w, threshold = contract.check_inputs(params, x, {"w": ("D", "E"), "threshold": ("E",)})
    k = contract.check_k(k, w.shape[1])
    training, _ = contract.check_training(training, rng)
    valid = contract.check_valid(valid, len(x))
    m = min(contract.capacity(valid.sum(), w.shape[1], k, 1.0), int(valid.sum()))
    logits = linear_map.linear(x, w)
    probs = numerics.softmax(logits)
    by_threshold = (probs > threshold) & valid[:, None]
    kept = _batch_mask(logits, m, valid) if training else by_threshold
    weight = numerics.softmax(np.where(kept, logits, -np.inf))  # a row that keeps none is all 0
    token, expert = np.nonzero(kept)
    routing = Routing(token, expert, weight[kept], logits, probs, kept)
    return routing, Cache(x, w, threshold, logits, probs, kept, weight, m, training, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The mask is held."""
    dgate = np.zeros_like(cache.weight)
    dgate[cache.kept] = weighting.check_dweight(dweight, int(np.count_nonzero(cache.kept)))
    dscore = numerics.softmax_backward(dgate, cache.weight)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w", "threshold"}. The mask is held: the
    thresholds get their gradient from `threshold_loss` alone, and 0 here.
    """
    dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw, "threshold": np.zeros_like(cache.threshold)}


def threshold_loss(cache: Cache) -> BalanceLoss:
    """Eq. (20), a sum over tokens and experts, 0 where both masks agree: value, dlogits (N, E),
    dthreshold (E,).

    dthreshold is what eq. (20) is for: tokens that the batchwise mask takes minus tokens above T.
    Whether the authors let it move the gate too is not said: pass `dlogits` on to `route_backward`
    or leave it.
    """
    by_threshold = (cache.probs > cache.threshold) & cache.valid[:, None]
    excess = by_threshold.astype(cache.probs.dtype) - _batch_mask(
        cache.logits, cache.m, cache.valid
    )
    value = float((excess * (cache.probs - cache.threshold)).sum())
    dlogits = numerics.softmax_backward(excess, cache.probs)
    return BalanceLoss(value, dlogits=dlogits, dthreshold=-excess.sum(axis=0))


def _batch_mask(logits, m, valid):
    """M_batchwise (N, E) bool. Ranks log G_σ: the order of G_σ, and exact where G_σ underflows."""
    score = np.where(valid[:, None], numerics.log_softmax(logits), -np.inf)
    kept = np.zeros(logits.shape, bool)
    np.put_along_axis(kept, contract.top_k(score.T, m).T, True, axis=0)
    return kept


# --- the stages, for the step view ----------------------------------------------------------------

BY_EXPERTS = "The experts choose: equally many tokens each in a batch, any number with thresholds."
STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SOFTMAX,
    Stage(
        "mask",
        r"\text{each expert keeps its } m \text{ largest}, \; m = \lceil k N / E \rceil",
        {"m": "", "kept": "N E"},
        BY_EXPERTS,
        when=("training", True),
    ),
    Stage(
        "mask",
        r"\mathrm{kept}_{ni} = \mathrm{probs}_{ni} > \mathrm{threshold}_i",
        {"kept": "N E"},
        BY_EXPERTS,
        when=("training", False),
    ),
    Stage(
        "weights",
        r"\mathrm{weight} = \text{softmax over what a token's row keeps}",
        {"weight": "N E"},
        "0 elsewhere. Eq. 16.",
    ),
)
BACKWARD: tuple[Stage, ...] = (
    stages.through_kept(),
    stages.LINEAR_BACKWARD._replace(arrays={"dx": "N D", "dw": "D E", "dthreshold": "E"}),
)
