"""Trees that learn case by case: recursive least squares (Jordan and Jacobs 1994, on-line
algorithm), and the gradient.

Of every expert and every gate there is a matrix, the inverse of the weighted sum of x xᵀ so far.
One case changes it by

    R ← (1/λ) [R − R x xᵀ R / (λ/h + xᵀ R x)]     h: weight of the case, λ: how fast the past is forgotten
    U_ij ← U_ij + h_ij R_ij x (y − μ_ij)ᵀ                        experts, h = h_ij
    v_ij ← v_ij + h_i S_i x (log h_j|i − ξ_j|i)                  gates, h = h_i, the posterior of the gate itself

The weight h belongs into the denominator: without it R shrinks as if the expert had seen every case
in full, and the expert stops learning before it has found its own. Siblings see the same cases with
the same weights, so a gate has one matrix S for all its branches. As in Algorithm 2, log h is taken
about its mean over the branches and clipped.

    here        shape        meaning
    R           (E, K, K)    experts' matrices, K = D + 1, the constant input last
    S{l}        (P, K, K)    those of the gates on level l
    n           () or (E,)   how many cases the variances are worth, forgotten like all else
"""

import itertools
from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.optim import gradient_descent
from moe_np.mixtures import hme
from moe_np.mixtures.hme_em import CLIP, log_ratio

METHODS = ("rls", "gradient")


class Options(NamedTuple):
    """How to learn from one case."""

    forget: float = 0.99  # λ at the start
    nearer: float = 0.4  # the distance of λ from 1 shrinks to this part of itself ...
    every: int = (
        1000  # ... every so many cases: λ < 1 for ever would forget idle experts altogether
    )
    clip: float = CLIP
    weighted: bool = True  # False: without h in the denominator, to see what it is for
    hold: bool = False  # leave the variances as they are


DEFAULT = Options()


class Memory(NamedTuple):
    """What is carried from case to case besides the parameters."""

    cases: int
    R: np.ndarray
    S: list
    n: np.ndarray


def memory(params, *, width=1.0, worth=100.0):
    """Matrices of width · I, which are a ridge of 1/width on all coefficients; "var" counts as
    `worth` cases.
    """
    K = len(params["U1"]) + 1
    S = [
        np.tile(width * np.eye(K), (len(params[f"c{level}"]), 1, 1))
        for level in range(1, hme.depth(params) + 1)
    ]
    R = np.tile(width * np.eye(K), (len(params["W"]), 1, 1))
    return Memory(0, R, S, np.full(np.shape(params.get("var", 0.0)), float(worth)))


def rls(R, x, h, forget=1.0, weighted=True):
    """R (M, K, K) after a case x (K,) of weight h (M,). With λ = 1: (R⁻¹ + h x xᵀ)⁻¹."""
    Rx = R @ x
    h_down = h if weighted else np.ones_like(h)
    gain = h_down / (forget + h_down * (Rx @ x))
    return (R - gain[:, None, None] * Rx[:, :, None] * Rx[:, None, :]) / forget


def forgetting(options, cases):
    """λ after so many cases."""
    return 1 - (1 - options.forget) * options.nearer ** (cases // options.every)


def observe(params, mem, x, y, options=DEFAULT):
    """Learn from one case x (D,), y (C,): (params, memory, loss before). Nothing is changed in
    place.
    """
    loss, cache = hme.forward(params, x[None], y[None])
    post, z, lam = cache.post, np.append(x, 1.0), forgetting(options, mem.cases)
    resp, residual = post.resp[0], y - cache.mu[0]
    R = rls(mem.R, z, resp, lam, options.weighted)
    step = (resp[:, None] * (R @ z))[:, :, None] * residual[:, None, :]
    new = {**params, "W": params["W"] + step[:, :-1], "b": params["b"] + step[:, -1]}
    S, above = [], np.ones(1)
    for level, (h, old) in enumerate(zip(post.h, mem.S, strict=True), start=1):
        U, c = params[f"U{level}"], params[f"c{level}"]
        S.append(rls(old, z, above, lam, options.weighted))
        miss = log_ratio(h[0], options.clip) - (np.einsum("d,dpb->pb", x, U) + c)
        step = (above[:, None] * (S[-1] @ z))[:, :, None] * miss[:, None, :]
        new[f"U{level}"], new[f"c{level}"] = U + step[:, :-1].transpose(1, 0, 2), c + step[:, -1]
        above = post.joint[level - 1][0].reshape(-1)
    n = mem.n
    if not options.hold:
        new["var"], n = running_mean(params["var"], n, (residual**2).mean(axis=1), resp, lam)
    return new, Memory(mem.cases + 1, R, S, n), float(loss[0])


def running_mean(var, n, square, resp, lam):
    """The variances after one more case with the squared errors (E,), and how many cases they are
    worth now.
    """
    weight, seen = (resp, square) if n.ndim else (1.0, resp @ square)
    n = lam * n + weight
    return var + weight * (seen - var) / n, n


def descend(params, mem, x, y, lr, options=DEFAULT):
    """The same by one step of the gradient; the variances, unless held, as running means as above."""
    loss, cache = hme.forward(params, x[None], y[None])
    grads = hme.backward(np.ones(1), cache)[1]
    new = {
        **params,
        **gradient_descent({k: v for k, v in params.items() if k != "var"}, grads, lr=lr),
    }
    n = mem.n
    if "var" in params and not options.hold:
        square, lam = ((y - cache.mu[0]) ** 2).mean(axis=1), forgetting(options, mem.cases)
        new["var"], n = running_mean(params["var"], n, square, cache.post.resp[0], lam)
    return new, mem._replace(cases=mem.cases + 1, n=n), float(loss[0])


# --- Passes over the data -------------------------------------------------------------------------


def train(params, x, y, *, rng, method="rls", lr=None, options=DEFAULT, mem=None):
    """Pass after pass over the cases, in a new random order each: yields a `hme.Step` after 0, 1,
    2, ... passes.

    method  "rls", or "gradient" with step size `lr`
    A step's loss is that of all cases under its parameters, its cache the E step there. Compiled where Numba is.
    The gradient also serves categorical experts and, held, covariance matrices, without being compiled.
    """
    checks.choice("method", method, METHODS)
    params, x, y = hme.checked(params, x, y)
    labels, full = "var" not in params, np.ndim(params.get("var", 0.0)) > 1
    if (labels and method == "rls") or (full and not options.hold):
        raise checks.InputError(
            "params: wanted Gaussian experts with one variance, or one an expert"
        )
    for level in range(1, hme.depth(params) + 1):  # h = 0 for ever has no logarithm to learn
        checks.array(f"params['c{level}']", params[f"c{level}"], ("P", "b"))
    if (method == "gradient") != (lr is not None):
        raise checks.InputError("lr: wanted a step size with the gradient, and none with rls")
    checks.generator("rng", rng)
    checks.number("options.forget", options.forget, above=0, maximum=1)
    checks.number("options.nearer", options.nearer, minimum=0, maximum=1)
    checks.number("options.clip", options.clip, above=0)
    checks.integer("options.every", options.every)
    lr = None if lr is None else checks.number("lr", lr, above=0)
    mem = memory(params) if mem is None else mem
    for number in itertools.count():
        loss, cache = hme.forward(params, x, y)
        yield hme.Step(number, float(loss.sum()), params, cache)
        params, mem, _ = one_pass(params, mem, x, y, rng.permutation(len(x)), lr, options)


def one_pass(params, mem, x, y, order, lr=None, options=DEFAULT):
    """`numpy_pass`, compiled where Numba is, x is float64 and there is one variance, or one an
    expert.
    """
    quick = (
        kernels.backend() == "numba"
        and x.dtype == np.float64
        and np.ndim(params.get("var", [[]])) < 2
    )
    return (_compiled_pass if quick else numpy_pass)(params, mem, x, y, order, lr, options)


def numpy_pass(params, mem, x, y, order, lr, options):
    """Learn from the cases one by one: (params, memory, Σ of the losses before each). lr None:
    least squares.
    """
    total = 0.0
    for i in order:
        if lr is None:
            params, mem, loss = observe(params, mem, x[i], y[i], options)
        else:
            params, mem, loss = descend(params, mem, x[i], y[i], lr, options)
        total += loss
    return params, mem, total


def _compiled_pass(params, mem, x, y, order, lr, options):

    tree = np.array(hme.branching(params))
    levels, E = range(1, len(tree) + 1), len(params["W"])
    V = np.concatenate([_rows(params[f"U{level}"], params[f"c{level}"]) for level in levels])
    W = np.ascontiguousarray(
        np.concatenate([params["W"], params["b"][:, None]], axis=1).transpose(0, 2, 1)
    )
    R, S = mem.R.copy(), np.concatenate(mem.S)
    var, n = (np.array(np.broadcast_to(a, E), dtype=float) for a in (params["var"], mem.n))
    inputs = np.column_stack([x, np.ones(len(x))])
    hold = 1 if options.hold else 0 if params["var"].ndim else 2
    total = kernels.hme_online.hme_epoch(
        inputs, np.ascontiguousarray(y), order, tree, V, W, var, R, S, n, mem.cases, 0 if lr is None else 1,
        float(options.forget), float(options.nearer), options.every, float(options.clip), options.weighted, hold,
        0.0 if lr is None else float(lr),
    )  # fmt: skip
    new, place, gate = {}, 0, 0
    S_levels = []
    for level in levels:
        P, b = params[f"c{level}"].shape
        own = V[place : place + P * b]
        new[f"U{level}"], new[f"c{level}"] = (
            own[:, :-1].T.reshape(-1, P, b).copy(),
            own[:, -1].reshape(P, b).copy(),
        )
        S_levels.append(S[gate : gate + P])
        place, gate = place + P * b, gate + P
    new["W"], new["b"] = W[:, :, :-1].transpose(0, 2, 1).copy(), W[:, :, -1].copy()
    new["var"], n = (a.copy() if params["var"].ndim else a[0].copy() for a in (var, n))
    return new, Memory(mem.cases + len(order), R, S_levels, np.asarray(n)), total


def _rows(U, c):
    """A level's gates, a branch a row, the constant last: (P·b, K)."""
    return np.concatenate([U.reshape(len(U), -1), c.reshape(1, -1)]).T
