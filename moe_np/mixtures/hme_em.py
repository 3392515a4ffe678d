"""EM for hierarchical mixtures of experts (HME): Jordan and Jacobs (1994), Algorithms 1 and 2.

E step: the posteriors h of all branches (hme.posterior). M step: each expert and each gating
network separately, a regression on the same inputs:

    experts         least squares of y with weights h_ij, the variances from the weighted residuals;
                    for labels weighted logistic regression
    top gate        logistic regression of h_i, by IRLS
    gates below     logistic regression of h_j|i with weights h_i, and so on down the tree

This is Algorithm 1: the likelihood never falls. Algorithm 2 fits the gates by one weighted least
squares regression of log h: another estimate, not a maximum, so the likelihood may fall. All gates
of a level are one call of irls.py, all experts another.

With weights w_n of the cases (`weight`) EM raises Σ_n w_n log P(y_n | x_n): every regression of the
M step has its weights times w_n. hme_fit.py runs EM from several initialisations.
"""

import itertools
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, Params
from moe_np.mixtures import hme
from moe_np.mixtures.em_families import Categorical, Family, Gaussian
from moe_np.mixtures.em_problem import check_case_weight
from moe_np.mixtures.irls import multinomial_irls
from moe_np.mixtures.least_squares import Coef, Design, from_centre, gram, make_design, solve

GATES = ("irls", "least squares")  # Algorithms 1 and 2
CLIP = 10.0  # bound of the log ratio that Algorithm 2 fits, since h = 0 has no logarithm

e_step = one_blas_thread()(hme.forward)  # (params, x, y) -> (loss (N,), cache)

# --- M step ---------------------------------------------------------------------------------------


@one_blas_thread()
def m_step(
    params: Params,
    design: Design,
    y: ArrayNC | ArrayN,
    post: hme.Posterior,
    *,
    family: Family,
    gates: str = "irls",
    ridge: float = 0.0,
    irls_steps: int = 1,
    clip: float = CLIP,
    hold: tuple[str, ...] = (),
    weight: ArrayN | None = None,
) -> Params:
    """New parameters of experts and gates from the posteriors; options as in `train`.

    design    `least_squares.make_design(x)`
    family    as `family_of(params, y)` returns it
    """
    options = {"gates": gates, "ridge": ridge, "irls_steps": irls_steps, "clip": clip}
    options["weight"] = weight
    resp = post.resp if weight is None else post.resp * weight[:, None]
    new = family.m_step(params, design, y, resp, ridge, irls_steps)
    for level in range(1, len(post.h) + 1):
        new |= fit_gates(params, design, post, level, **options)
    return {name: params[name] if name in hold else new[name] for name in params}


def fit_gates(
    params: Params,
    design: Design,
    post: hme.Posterior,
    level: int,
    *,
    gates: str = "irls",
    ridge: float = 0.0,
    irls_steps: int = 1,
    clip: float = CLIP,
    weight: ArrayN | None = None,
) -> Params:
    """The M step of the gates of one level: {"U{level}", "c{level}"}.

    Raises Σ_n w_n h_i Σ_j h_j|i log g_j|i for every gate i (gates="irls"). Branches that are not
    there (c = −inf) stay away.
    """
    h = post.h[level - 1]
    gate_weight = post.joint[level - 2].reshape(len(h), -1) if level > 1 else np.ones((len(h), 1))
    if weight is not None:
        gate_weight = gate_weight * weight[:, None]
    U = params[f"U{level}"].copy()
    c = params[f"c{level}"].copy()
    for rows, at in _gates_with_the_same_branches(c):
        if gates == "irls":
            initial = np.concatenate([U[:, *at].transpose(1, 0, 2), c[at][:, None, :]], axis=1)
            options = {"initial": initial, "ridge": ridge, "max_steps": irls_steps}
            coef, _ = multinomial_irls(design, h[:, *at], gate_weight[:, rows], **options)
        else:
            options = {"ridge": ridge, "clip": clip}
            coef = least_squares_gates(design, h[:, *at], gate_weight[:, rows], **options)
        U[:, *at] = coef[:, :-1].transpose(1, 0, 2)
        c[at] = coef[:, -1]
    return {f"U{level}": U, f"c{level}": c}


def _gates_with_the_same_branches(c):
    """(gates, index into c) of all gates with the same branches: in an even tree all gates at once.

    A gate with one branch has nothing to decide and is left out.
    """
    patterns, pattern_of_gate = np.unique(np.isfinite(c), axis=0, return_inverse=True)
    for number, present in enumerate(patterns):
        if present.sum() == 1:
            continue
        if len(patterns) == 1 and present.all():
            yield slice(None), (slice(None), slice(None))
        else:
            rows = np.flatnonzero(pattern_of_gate.ravel() == number)
            yield rows, np.ix_(rows, np.flatnonzero(present))


def least_squares_gates(
    design: Design,
    h: Annotated[np.ndarray, "N, P, b"],
    weight: Annotated[np.ndarray, "N, P"],
    *,
    ridge: float = 0.0,
    clip: float = CLIP,
) -> Coef:
    """Algorithm 2: coef (P, D + 1, b) of the weighted least squares regression of log h.

    Only differences of logits count, so log h is taken about its mean over the branches; for two
    branches this is the regression of their log ratio, which is kept within ±clip.
    """
    N, P, b = h.shape
    K = len(design.xt)
    target = log_ratio(h, clip)
    a = gram(design, weight.T)
    a[:, range(K - 1), range(K - 1)] += ridge
    right = design.xt @ (target * weight[:, :, None]).reshape(N, P * b)
    return from_centre(solve(a, right.reshape(K, P, b).swapaxes(0, 1)), design.mean)


def log_ratio(h: Array, clip: float) -> Array:
    """log h less its mean over the branches (last axis), within ±clip/2."""
    log_h = np.log(np.maximum(h, np.finfo(h.dtype).tiny))
    return np.clip(log_h - log_h.mean(axis=-1, keepdims=True), -clip / 2, clip / 2)


# --- Training -------------------------------------------------------------------------------------


def train(
    params: Params,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    *,
    gates: str = "irls",
    ridge: float = 0.0,
    irls_steps: int = 1,
    clip: float = CLIP,
    hold: tuple[str, ...] = (),
    weight: ArrayN | None = None,
) -> Iterator[hme.Iteration]:
    """EM: yields a `hme.Iteration` after 0, 1, 2, ... M steps, without end.

    gates       "irls" (Algorithm 1) or "least squares" (Algorithm 2)
    ridge       penalty ½ ridge ‖slopes‖² of gates and experts (weight decay)
    irls_steps  Newton steps of each gate in one M step, with step halving: with one step already
                the likelihood never falls (with a ridge, the penalised likelihood)
    clip        bound of the log ratios that Algorithm 2 fits
    hold        names of parameters that keep their values, e.g. ("var",)
    weight      (N,), not negative: weights w_n of the cases; None is 1

    The cache of an iteration is its E step. Raises InputError for bad arguments.
    """
    options = {"gates": gates, "ridge": ridge, "irls_steps": irls_steps, "clip": clip, "hold": hold}
    problem = prepare(params, x, y, weight=weight, **options)
    params = problem.params
    options |= {"family": problem.family, "weight": problem.weight}
    for number in itertools.count():
        loss, cache = e_step(params, problem.x, problem.y)
        total = float(loss.sum() if problem.weight is None else problem.weight @ loss)
        yield hme.Iteration(number, total, params, cache)
        params = m_step(params, problem.design, problem.y, cache.post, **options)


class Problem(NamedTuple):
    """The data of EM for a tree, checked; `prepare` makes it."""

    params: Params
    x: ArrayND
    y: ArrayNC | ArrayN
    design: Design
    family: Family
    weight: ArrayN | None


def prepare(
    params: Params,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    *,
    gates: str,
    ridge: float,
    irls_steps: int,
    clip: float,
    hold: tuple[str, ...],
    weight: ArrayN | None = None,
) -> Problem:
    """Check the arguments of `train` and bring the data into the form of the E and M steps."""
    checks.choice("gates", gates, GATES)
    checks.number("ridge", ridge, minimum=0)
    checks.number("clip", clip, greater_than=0)
    checks.integer("irls_steps", irls_steps)
    params, x, y = hme.check(params, x, y)
    for name in hold:
        checks.choice("hold", name, tuple(params))
    weight = check_case_weight(weight, len(x))
    family, y = family_of(params, y, hold, weight)
    return Problem(params, x, y, make_design(x), family, weight)


def family_of(
    params: Params,
    y: ArrayNC | ArrayN,
    hold: tuple[str, ...] = (),
    weight: ArrayN | None = None,
) -> tuple[Family, ArrayNC | ArrayN]:
    """(family, y): the family of experts (em_families.py) that the parameters belong to."""
    if "var" not in params:
        return Categorical(params["b"].shape[1]).resolve(y)
    learned = {0: "shared", 1: "expert", 3: "full"}[np.ndim(params["var"])]
    return Gaussian("fixed" if "var" in hold else learned).resolve(y, weight)
