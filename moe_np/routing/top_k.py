"""Top-k softmax gate: Mixtral (Jiang et al. 2024, arXiv 2401.04088, section 2.1), DeepSeekMoE,
GLaM.

    paper            here       shape     meaning
    W_g              w          (D, E)    router matrix
    x·W_g            logits     (N, E)
    softmax(x·W_g)   probs      (N, E)
    TopK             choice     (N, k)    best first
    G(x)             weight     (N, k)    row by row the weights of the assignments

Renormalised, the weights are a softmax over the k kept logits, which is the same as the k kept
probabilities divided by their sum: the other logits get a gradient of exactly 0 (Mixtral, GLaM,
GShard). Not renormalised, they are the probabilities themselves, and every logit gets a gradient
(DeepSeekMoE, Switch). Which of the two is an argument without a default.
"""

from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks, numerics
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    probs: np.ndarray  # (N, E)
    choice: np.ndarray  # (N, k)
    weight: np.ndarray  # (N, k)
    renormalise: bool
    valid: np.ndarray | None  # (N,) bool


def init(rng, d_model, n_experts, *, scale=1.0, dtype=np.float64):
    """{"w": (D, E)}, normal with standard deviation scale/√D."""
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts)
    return {"w": (rng.normal(size=(D, E)) * scale / np.sqrt(D)).astype(dtype)}


def route(params, x, *, k, renormalise, valid=None, training=None, rng=None):
    """Send each token to its k largest logits: x (N, D) -> (Routing, A = k·N, and cache). No noise:
    no `rng`.
    """
    compiled = kernels.backend() == "numba"
    x, w = contract.check_tokens(x, params, finite=not compiled), params["w"]
    k = contract.check_k(k, w.shape[1])
    contract.check_renormalise(renormalise, k)
    contract.check_training(training, rng)
    valid = None if valid is None else contract.check_valid(valid, len(x))
    if compiled:
        found = kernels.top_k.forward(x, w, k, renormalise) or contract.check_tokens(
            x, params
        )  # which says what is not finite
    else:
        found = forward_numpy(x, w, k, renormalise)
    logits, probs, choice, weight, demand = found
    token, expert, row_weight = contract.rows(choice, weight, valid)
    if valid is not None:
        demand &= valid[:, None]
    routing = Routing(token, expert, row_weight, logits, probs, demand)
    return routing, Cache(x, w, probs, choice, weight, renormalise, valid)


def forward_numpy(x, w, k, renormalise):
    """The gate as NumPy says it: -> logits (N, E), probs (N, E), choice (N, k), weight (N, k),
    demand (N, E).
    """
    logits = x @ w
    probs = numerics.softmax(logits)
    choice = contract.top_k(logits, k)
    if renormalise:
        weight = numerics.softmax(np.take_along_axis(logits, choice, axis=1))
    else:
        weight = np.take_along_axis(probs, choice, axis=1)
    return logits, probs, choice, weight, contract.demand_of(choice, w.shape[1])


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. The choice is held."""
    x, w = cache.x, cache.w
    if cache.renormalise and dlogits is None and kernels.backend() == "numba":
        dweight = contract.rows_backward(dweight, cache.choice.shape, cache.valid)
        dx, dw = kernels.top_k.backward(dweight, cache.weight, cache.choice, x, w)
    else:
        dx, dw = contract.linear_backward(logits_backward(dweight, dlogits, cache), x, w)
    return dx, {"w": dw}


def logits_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The choice is held."""
    _, _, probs, choice, weight, renormalise, valid = cache
    dweight = contract.rows_backward(dweight, choice.shape, valid)
    spread = np.zeros_like(probs)
    if renormalise:  # softmax over the kept logits, nothing to the others
        np.put_along_axis(spread, choice, numerics.softmax_backward(dweight, weight), axis=1)
    else:  # through the softmax over all E
        np.put_along_axis(spread, choice, dweight, axis=1)
        spread = numerics.softmax_backward(spread, probs)
    return contract.with_dlogits(spread, dlogits, valid)
