"""What a router is: a file with three functions, and the few pieces that several of them share.

A router maps N tokens to a weighted bipartite graph between tokens and experts, one row per
assignment:

    init(rng, d_model, n_experts, ...)           -> params, a dict of arrays
    route(params, x, ..., rng=None)              -> (Routing, cache)    x (N, D); rng=None is evaluation: no noise
    route_backward(dweight, dlogits, cache)      -> (dx, grads)         dweight (A,), dlogits (N, E) or None

`dweight` comes from the layer that used the weights, `dlogits` from balance losses; the backward
pass adds up both. Which expert is chosen is never differentiated, except where a file says how.
Nothing that comes in is changed.

Rules for all (each has a test): a dropped assignment is absent, not a row of zeros; the lowest
expert index wins a tie; without `rng` a router is deterministic; noise belongs to the router and
never reaches `x`.
"""

import math
from numbers import Real
from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.checks import InputError


class Routing(NamedTuple):
    """A assignments of N tokens to E experts. Any order; the routers here list token by token, best
    choice first.
    """

    token: np.ndarray  # (A,) row of x
    expert: np.ndarray  # (A,)
    weight: np.ndarray  # (A,) what the expert's output is multiplied by
    # (N, E) before any softmax; None where nothing of the kind is learned
    logits: np.ndarray | None
    # (N, E) the router's scores of all experts, the rows summing to 1 where it is a softmax
    probs: np.ndarray
    demand: np.ndarray  # (N, E) bool: which experts each token asked for, before any capacity


class BalanceLoss(NamedTuple):
    """A load-balancing loss (auxiliary loss) of one routing: its value and its gradients, None for
    what it does not reach. moe_np/layers/balance.py has the losses and adds them up.
    """

    value: float
    dweight: np.ndarray | None = None  # (A,) of Routing.weight, for route_backward
    dlogits: np.ndarray | None = None  # (N, E) of Routing.logits, for route_backward
    dload: np.ndarray | None = None  # (E,) of the expected load of noisy_top_k.py
    dthreshold: np.ndarray | None = None  # (E,) of the thresholds of strictly_balanced.py


def check_tokens(x, params, name="w", *, finite=True):
    """Check x (N, D) against a router matrix (D, E); return x. A router needs no other check of its
    input.
    """
    x = checks.array("x", x, ("N", "D"), finite=finite)
    w = params[name]
    if x.shape[1] != w.shape[0]:
        raise InputError(
            f"x: wanted {w.shape[0]} features a token, as params[{name!r}] has, got {x.shape[1]}"
        )
    if x.dtype != w.dtype:
        raise InputError(f"x: wanted {w.dtype}, the type of params[{name!r}], got {x.dtype}")
    return x


def check_k(k, n_experts):
    """Check the number of choices: 1 <= k <= E."""
    if checks.integer("k", k) > n_experts:
        raise InputError(f"k: wanted at most the {n_experts} experts there are, got {k}")
    return int(k)


def check_renormalise(renormalise, k):
    """k = 1 renormalised is weight 1 for every token: the gate would get a task gradient of exactly
    0 (errata 4).
    """
    if renormalise and k == 1:
        raise InputError(
            "renormalise: with k = 1 the renormalised weight is always 1, so the task's gradient of the router is 0 "
            "and it learns nothing; wanted renormalise=False (Switch) or k of at least 2"
        )


def check_training(training, rng, noise=None):
    """The switch of mode: -> whether this is training, and the generator to draw from.

    `training` None means: with a generator. Evaluation draws nothing, whatever `rng` is. `noise`
    names what a router has to draw in training; it then raises InputError without a generator.
    """
    if rng is not None:
        checks.generator("rng", rng)
    if training is None:
        training = rng is not None
    if not isinstance(training, (bool, np.bool_)):
        raise InputError(f"training: wanted True, False or None, got {training!r}")
    if training and noise is not None and rng is None:
        raise InputError(
            f"rng: wanted a numpy.random.Generator with training=True, for {noise}; got None"
        )
    return bool(training), rng if training else None


def check_valid(valid, n_tokens):
    """Check the padding mask: bool (N,), False where a token is padding; None is no padding. Return
    the mask.
    """
    if valid is None:
        return np.ones(n_tokens, bool)
    valid = np.asarray(valid)
    if valid.dtype != bool or valid.shape != (n_tokens,):
        raise InputError(
            f"valid: wanted bool of shape ({n_tokens},), got {valid.dtype} of shape {valid.shape}"
        )
    return valid


FEW = 8  # up to so many choices, as many passes over the scores are faster than sorting them


def top_k(scores, k):
    """Indices (N, k) of the k largest of each row, largest first; the lowest index wins a tie.
    scores (N, E), no NaN.

    The same as a stable sort of the rows, but faster: k rounds of arg-max, or for a larger k a sort
    that need not be stable. Rows in which the quick way cannot tell (−inf among the k, ties) are
    sorted once more.
    """
    choice, unsure = (_by_rounds if k <= FEW else _by_sorting)(scores, k)
    if unsure.any():
        choice[unsure] = np.argsort(-scores[unsure], axis=1, kind="stable")[:, :k]
    return choice


def _by_rounds(scores, k):
    """k times the arg-max (the first of equals) of what is left. A taken entry becomes −inf: unsure
    where that wins.
    """
    left, rows = scores.copy(), np.arange(len(scores))
    choice, unsure = np.empty((len(scores), k), np.int64), np.zeros(len(scores), bool)
    for j in range(k):
        best = choice[:, j] = left.argmax(axis=1)
        unsure |= left[rows, best] == -np.inf
        left[rows, best] = -np.inf
    return choice, unsure


def _by_sorting(scores, k):
    """Without equal values in a row there is one order only, and any sort finds it; unsure where
    two are equal.
    """
    if k < scores.shape[1]:  # the k best and the next one, which may equal the last of them
        order = np.argpartition(-scores, k, axis=1)[:, : k + 1]
        best = np.argsort(-np.take_along_axis(scores, order, axis=1), axis=1)
        order = np.take_along_axis(order, best, axis=1)
    else:
        order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    return order[:, :k], (ranked[:, 1:] == ranked[:, :-1]).any(axis=1)


def capacity(n_tokens, n_experts, k, factor):
    """C = ceil(factor · N · k / E), at least 1: the most tokens one expert takes (Switch, section
    2.2).

    Rounding down would give 0, every token dropped, for short sequences (errata 9).
    """
    if isinstance(factor, bool) or not (
        isinstance(factor, Real) and math.isfinite(factor) and factor > 0
    ):
        raise InputError(f"capacity_factor: wanted a finite number above 0, got {factor!r}")
    return max(1, math.ceil(factor * n_tokens * k / n_experts))


def within_capacity(expert, n_experts, C):
    """Mask (A,) of the assignments that find a place when each expert takes its first C in the
    order given.

    The order is the policy: first choices of all tokens before second ones (GShard), or the highest
    scores first.
    """
    order = np.argsort(expert, kind="stable")
    count = np.bincount(expert, minlength=n_experts)
    start = np.cumsum(count) - count
    place = np.empty(len(expert), np.int64)
    place[order] = np.arange(len(expert)) - start[expert[order]]
    return place < C


def demand_of(choice, n_experts):
    """choice (N, k) -> demand (N, E) bool."""
    demand = np.zeros((len(choice), n_experts), bool)
    np.put_along_axis(demand, choice, True, axis=1)
    return demand


def rows(choice, weight, valid):
    """choice, weight (N, k) -> token, expert, weight (A,) of the assignments of valid tokens."""
    token = np.repeat(np.arange(len(choice)), choice.shape[1])
    if valid is None:
        return token, choice.ravel(), weight.ravel()
    return token.reshape(choice.shape)[valid].ravel(), choice[valid].ravel(), weight[valid].ravel()


def rows_backward(dweight, shape, valid):
    """dweight (A,) of the rows of `rows` -> (N, k), 0 where a token is padding."""
    if valid is None:
        return dweight.reshape(shape)
    out = np.zeros(shape, dweight.dtype)
    out[valid] = dweight.reshape(-1, shape[1])
    return out


def with_dlogits(dscore, dlogits, valid):
    """The gradient through the weights and that of a loss on the logits, which padding does not
    get: (N, E).
    """
    if dlogits is None:
        return dscore
    return dscore + (dlogits if valid is None else np.where(valid[:, None], dlogits, 0))


def linear_backward(dlogits, x, w):
    """Backward of logits = x · w: dlogits (N, E) -> dx (N, D), dw (D, E)."""
    if (
        x.size * w.shape[1] >= 1 << 18 and kernels.backend() == "numba"
    ):  # below, BLAS takes one thread anyway
        return kernels.top_k.linear_backward(dlogits, x, w)
    return dlogits @ w.T, x.T @ dlogits
