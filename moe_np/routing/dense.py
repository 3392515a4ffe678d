"""Dense softmax gate: every token to every expert. Jordan and Jacobs 1994; Shazeer et al. 2017,
section 2.1, eq. (2).

    paper            here       shape     meaning
    W_g              w          (D, E)    router matrix
    x·W_g            logits     (N, E)
    G_σ(x)           probs      (N, E)    softmax(x·W_g): the weights of all E experts

The mixture that all sparse gates approximate, with A = N·E assignments. Everything is
differentiated.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    probs: np.ndarray  # (N, E)
    valid: np.ndarray | None  # (N,) bool


def init(rng, d_model, n_experts, *, scale=1.0, dtype=np.float64):
    """{"w": (D, E)}, normal with standard deviation scale/√D."""
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts)
    return {"w": (rng.normal(size=(D, E)) * scale / np.sqrt(D)).astype(dtype)}


def route(params, x, *, valid=None, training=None, rng=None):
    """Send each token to all experts: x (N, D) -> (Routing, A = N·E, and cache). `rng` is not used:
    no noise.
    """
    x, w = contract.check_tokens(x, params), params["w"]
    contract.check_training(training, rng)
    valid = None if valid is None else contract.check_valid(valid, len(x))
    N, E = len(x), w.shape[1]
    logits = x @ w
    probs = numerics.softmax(logits)
    token, expert, weight = contract.rows(np.tile(np.arange(E), (N, 1)), probs, valid)
    demand = np.ones((N, E), bool)
    if valid is not None:
        demand &= valid[:, None]
    return Routing(token, expert, weight, logits, probs, demand), Cache(x, w, probs, valid)


def logits_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E), through the softmax."""
    dprobs = contract.rows_backward(dweight, cache.probs.shape, cache.valid)
    dscore = numerics.softmax_backward(dprobs, cache.probs)
    return contract.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}."""
    dx, dw = contract.linear_backward(logits_backward(dweight, dlogits, cache), cache.x, cache.w)
    return dx, {"w": dw}
