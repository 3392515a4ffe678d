"""BASE: as many tokens to every expert, by a linear assignment (Lewis et al. 2021, arXiv
2103.16716, section 3).

    paper        here       shape     meaning
    h_t          x          (N, D)    token
    w_e          w[:, e]    (D, E)    expert embedding (centroid)
    h_t·w_e      logits     (N, E)    score
    a_t          choice     (N,)      expert of token t
    σ(h_t·w_a)   weight     (N,)      gate of the chosen expert
    –            probs      (N, E)    sigmoid of every score; the rows do not sum to 1

Training:    a maximises Σ_t h_t·w_{a_t} with N/E tokens for every expert.   Evaluation: a_t = argmax_e h_t·w_e.

There is no balance loss. The gate's gradient pulls a centroid towards tokens that gain from its
expert. The layer's output is σ(h·w_a) f(h) + h; the + h is the residual outside of this router, and
f has none of its own.

Where E does not divide N (the paper's batches are cut so that it does) every expert takes
floor(N/E) or ceil(N/E) tokens, and which experts take one more is chosen for the sum too. The paper
finds the assignment by an auction among the workers; here it is SciPy's Jonker-Volgenant algorithm:
the same optimum, exact, but about N³ operations (a tenth of a second for 1,000 tokens, 15 s for
4,000). Among equal optima it is SciPy that decides, not the lowest index. The balanced form looks
at the whole batch and is not causal; the greedy form is.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    token: np.ndarray  # (A,)
    expert: np.ndarray  # (A,)
    weight: np.ndarray  # (A,)
    n_experts: int
    training: bool


def init(rng, d_model, n_experts, *, scale=0.1, dtype=np.float64):
    """{"w": (D, E)}: `scale` times orthonormal columns (with E > D: orthonormal rows, columns cannot
    be).
    """
    D = checks.integer("d_model", d_model)
    E = checks.integer("n_experts", n_experts)
    q, r = np.linalg.qr(rng.normal(size=(max(D, E), min(D, E))))
    q = q * np.sign(np.diag(r))  # without this the directions are not uniform
    return {"w": (scale * (q if D >= E else q.T)).astype(dtype)}


def assign(scores):
    """The best balanced assignment: scores (N, E) -> expert (N,), every expert floor(N/E) or
    ceil(N/E) times.

    Each expert is repeated once per place. With a remainder it has one place more than floor(N/E),
    and tokens that do not exist, of score 0 there and forbidden elsewhere, take the extra places of
    all but N mod E experts.
    """
    from scipy.optimize import linear_sum_assignment

    N, E = scores.shape
    floor, rest = divmod(N, E)
    places = np.tile(
        scores, (1, floor + (rest > 0))
    )  # place p belongs to expert p mod E, extra places last
    if rest:
        nobody = np.full((E - rest, places.shape[1]), -np.inf)
        nobody[:, floor * E :] = 0
        places = np.concatenate([places, nobody])
    _, place = linear_sum_assignment(places, maximize=True)
    return place[:N] % E


def route(params, x, *, valid=None, training=None, rng=None):
    """One expert a token: x (N, D) -> (Routing, cache). Balanced in training, greedy
    in evaluation.

    Padding (valid[n] = False) takes no place and gets no row. A token's demand is what it was
    assigned. No noise: `rng` is not used.
    """
    x, w = contract.check_tokens(x, params), params["w"]
    training, _ = contract.check_training(training, rng)
    token = np.flatnonzero(contract.check_valid(valid, len(x)))
    logits = x @ w
    probs = numerics.sigmoid(logits)
    expert = assign(logits[token]) if training else logits[token].argmax(axis=1)
    weight = probs[token, expert]
    demand = np.zeros(probs.shape, bool)
    demand[token, expert] = True
    return Routing(token, expert, weight, logits, probs, demand), Cache(
        x, w, token, expert, weight, w.shape[1], training
    )


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. The assignment is held."""
    x, w, token, expert, weight, E, _ = cache
    spread = np.zeros((len(x), E), x.dtype)
    spread[token, expert] = numerics.sigmoid_backward(dweight, weight)
    dx, dw = contract.linear_backward(spread if dlogits is None else spread + dlogits, x, w)
    return dx, {"w": dw}
