"""GShard's top-2 gate with a random second expert: Lepikhin et al. 2020 (arXiv 2006.16668), section
2.2, Algorithm 1.

    paper            here            shape     meaning
    wg               w               (D, E)    router matrix
    g_{s,e}          probs           (N, E)    softmax over all E (line 2)
    e1, e2           choice          (N, 2)    the two largest
    g1, g2           gates           (N, 2)    g1/(g1 + g2), g2/(g1 + g2) (lines 6, 16)
    rnd              rnd             (N,)      uniform; the second expert is asked if 2·g2 > rnd (line 19)
    C                C                         places of an expert, for first and second choices together
    S, G_{s,e}       N, weight       (A,)      the gates of the choices that were sent and found a place

An expert's places go to the first choices of all tokens, in token order, then to the second ones
(two loops, lines 4 and 14). The two gates are renormalised before any capacity is applied: a token
whose first choice is dropped keeps its g2 < 1. A later token's first choice can thus take the place
of an earlier token's second one: with a capacity the gate is not causal. Line 22 counts a place for
a second choice that the random number has rejected; the Mesh TensorFlow code, which has the same
gate, does not. `variant` says which.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    choice: np.ndarray  # (N, 2)
    gates: np.ndarray  # (N, 2)
    kept: np.ndarray  # (N, 2) bool: sent and placed


def init(rng, d_model, n_experts, *, scale=1.0, dtype=np.float64):
    """{"w": (D, E)}, normal with standard deviation scale/√D."""
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts, minimum=2)
    return {"w": (rng.normal(size=(D, E)) * scale / np.sqrt(D)).astype(dtype)}


def route(params, x, *, capacity_factor=None, variant="paper", valid=None, training=None, rng=None):
    """Send each token to its best expert and, at random, to its second: x (N, D) -> (Routing,
    cache).

    capacity_factor   C = ceil(factor · 2N/E) places an expert (1 is the paper's C = 2N/E of a group); None: no limit
    variant           "paper": a rejected second choice takes a place all the same; "code": it takes none
    valid             (N,) bool: tokens outside take no place, get no row and do not count in N

    Without `rng` the second expert is always asked. The group of the paper is the batch here.
    """
    x, choice, gates, logits = top_2(params, x)
    checks.choice("variant", variant, ("paper", "code"))
    _, rng = contract.check_training(training, rng, "the random second expert")
    valid = contract.check_valid(valid, len(x))
    asked = np.stack([valid, valid], axis=1)
    if rng is not None:
        rnd = np.ones(len(x))
        rnd[valid] = rng.random(valid.sum())
        asked[:, 1] &= 2 * gates[:, 1] > rnd
    queue = asked if variant == "code" else np.stack([valid, valid], axis=1)
    kept = asked & places(choice, queue, valid.sum(), logits.shape[1], capacity_factor)
    return assignments(choice, gates, asked, kept, logits), Cache(
        x, params["w"], choice, gates, kept
    )


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Choices, random numbers and places
    are held.
    """
    dgates = np.zeros_like(cache.gates)
    dgates[cache.kept] = dweight
    dscore = np.zeros((len(cache.x), cache.w.shape[1]), cache.gates.dtype)
    np.put_along_axis(dscore, cache.choice, numerics.softmax_backward(dgates, cache.gates), axis=1)
    dx, dw = contract.linear_backward(
        dscore if dlogits is None else dscore + dlogits, cache.x, cache.w
    )
    return dx, {"w": dw}


# --- what every top-2 gate does (ST-MoE uses it too) ----------------------------------------------


def top_2(params, x):
    """x -> x checked, the two largest logits' experts (N, 2), their softmax (N, 2), all logits (N,
    E).
    """
    x, w = contract.check_tokens(x, params), params["w"]
    if w.shape[1] < 2:
        raise InputError(
            f"params['w']: wanted at least 2 experts for two choices, got {w.shape[1]}"
        )
    logits = x @ w
    choice = contract.top_k(logits, 2)
    return x, choice, numerics.softmax(np.take_along_axis(logits, choice, axis=1)), logits


def places(choice, queue, n_tokens, n_experts, capacity_factor):
    """(N, 2) bool: which choices find a place, all first ones before all second ones; `queue` (N,
    2) says who waits.
    """
    if capacity_factor is None:
        return queue
    placed = np.zeros(queue.T.shape, bool)
    C = contract.capacity(n_tokens, n_experts, 2, capacity_factor)
    placed[queue.T] = contract.within_capacity(choice.T[queue.T], n_experts, C)
    return placed.T


def assignments(choice, gates, asked, kept, logits):
    """The Routing of the kept choices, token by token, with the asked ones as demand."""
    token, rank = np.nonzero(kept)
    demand = np.zeros(logits.shape, bool)
    demand[np.nonzero(asked)[0], choice[asked]] = True
    return Routing(
        token, choice[token, rank], gates[kept], logits, numerics.softmax(logits), demand
    )
