"""Strictly balanced gate: Shazeer et al. 2017 (arXiv 1701.06538), appendix F. Experts get equally
many tokens.

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
    G                weight      (N, E)    0 where not kept; the rows of kept experts are the assignments
    m                m                     tokens an expert takes, ceil(k·N/E)
    n, |X|           E, N

The experts choose, five years before expert choice (Zhou et al. 2022): a token gets k experts on
average, and may get none. The batchwise mask compares tokens with each other, so a token's experts
depend on later tokens; the threshold mask looks at one token alone, and eq. (20) is what makes it
learn the batchwise one. A token with a single expert has weight 1 and sends no gradient to the
gate.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    threshold: np.ndarray
    logits: np.ndarray  # (N, E)
    probs: np.ndarray  # (N, E)
    kept: np.ndarray  # (N, E) bool
    weight: np.ndarray  # (N, E)
    k: int
    training: bool
    valid: np.ndarray  # (N,) bool


def init(rng, d_model, n_experts, *, scale=1.0, dtype=np.float64):
    """{"w": (D, E), "threshold": (E,)}: w normal with standard deviation scale/√D, thresholds 1/E
    (our choice).
    """
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts)
    return {
        "w": (rng.normal(size=(D, E)) * scale / np.sqrt(D)).astype(dtype),
        "threshold": np.full(E, 1 / E, dtype),
    }


def route(params, x, *, k, valid=None, training=None, rng=None):
    """Keep, of all token-expert pairs, those of the mask: x (N, D) -> (Routing, cache). No
    noise.

    training the batchwise mask (eq. 18); in evaluation it is the threshold mask (eq. 19)
    k        experts a token gets on average; a fraction in k·N/E is rounded up, and a tie goes to the earlier token
    valid    (N,) bool: tokens outside take no place and do not count in N
    """
    x, w, threshold = contract.check_tokens(x, params), params["w"], params["threshold"]
    k = contract.check_k(k, w.shape[1])
    training, _ = contract.check_training(training, rng)
    valid = contract.check_valid(valid, len(x))
    logits = x @ w
    probs = numerics.softmax(logits)
    kept = (
        _batch_mask(logits, k, valid) if training else (probs > threshold) & valid[:, None]
    )
    weight = _softmax_of_kept(logits, kept)
    token, expert = np.nonzero(kept)
    routing = Routing(token, expert, weight[kept], logits, probs, kept)
    return routing, Cache(x, w, threshold, logits, probs, kept, weight, k, training, valid)


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w", "threshold"}. The mask is held, T
    gets 0 here.
    """
    dgate = np.zeros_like(cache.weight)
    dgate[cache.kept] = dweight
    dscore = numerics.softmax_backward(dgate, cache.weight)
    dx, dw = contract.linear_backward(
        dscore if dlogits is None else dscore + dlogits, cache.x, cache.w
    )
    return dx, {"w": dw, "threshold": np.zeros_like(cache.threshold)}


def threshold_loss(cache):
    """Eq. (20), a sum over tokens and experts, 0 where both masks agree: -> value, dlogits (N, E),
    dthreshold (E,).

    dthreshold is what eq. (20) is for: tokens the batchwise mask takes minus tokens above T.
    Whether the authors let it move the gate too is not said: pass `dlogits` on to `route_backward`
    or leave it.
    """
    above = (cache.probs > cache.threshold) & cache.valid[:, None]
    excess = above.astype(cache.probs.dtype) - _batch_mask(cache.logits, cache.k, cache.valid)
    value = (excess * (cache.probs - cache.threshold)).sum()
    return value, numerics.softmax_backward(excess, cache.probs), -excess.sum(axis=0)


def _batch_mask(logits, k, valid):
    """M_batchwise (N, E) bool. Ranks log G_σ, the same order as G_σ and exact where G_σ underflows."""
    N, E = valid.sum(), logits.shape[1]
    m = min(contract.capacity(N, E, k, 1.0), N)
    score = np.where(valid[:, None], numerics.log_softmax(logits), -np.inf)
    kept = np.zeros(logits.shape, bool)
    np.put_along_axis(kept, contract.top_k(score.T, m).T, True, axis=0)
    return kept


def _softmax_of_kept(logits, kept):
    """Eq. (16) as a softmax over the kept logits of each row; a row that keeps none is all 0."""
    top = np.where(kept, logits, -np.inf).max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    e = np.exp(np.minimum(logits - top, 0)) * kept
    return e / np.where(kept.any(axis=1, keepdims=True), e.sum(axis=1, keepdims=True), 1)
