"""EM for hierarchical mixtures: Jordan and Jacobs (1994), Algorithms 1 and 2.

E step: the posteriors h of all branches (hme.posterior). M step: each expert and each gate by
itself, a regression on the same inputs,

    experts         least squares of y with weights h_ij; the variances from the weighted residuals
                    (labels: weighted logistic regression)
    top gate        logistic regression of h_i, by IRLS
    gates below     logistic regression of h_j|i with weights h_i, and so on down the tree

which is Algorithm 1: the likelihood never falls. Algorithm 2 has for the gates one weighted least
squares on log h instead: another estimate, not a maximum, so the likelihood may fall. All gates of
a level are one call of irls.py, all experts another.
"""

import itertools

import numpy as np

from moe_np.base import checks
from moe_np.mixtures import hme, irls
from moe_np.mixtures.em_families import Categorical, Gaussian
from moe_np.mixtures.hme import Step

GATES = ("irls", "least squares")
CLIP = 10.0  # of the log ratio that Algorithm 2 fits: h of 0 has no logarithm

e_step = irls.one_thread(hme.forward)  # (params, x, y) -> (loss (N,), cache)

# --- M step ---------------------------------------------------------------------------------------


def family_of(params, y, hold=()):
    """(family, y): what kind of experts these parameters are, as em_families.py has them."""
    if "var" not in params:
        return Categorical(params["b"].shape[1]).resolve(y)
    ndim = np.ndim(params["var"])
    return Gaussian(
        "fixed" if "var" in hold else {0: "shared", 1: "expert", 3: "full"}[ndim]
    ).resolve(y)


@irls.one_thread
def m_step(
    params, design, y, post, *, family, gates="irls", ridge=0.0, irls_steps=1, clip=CLIP, hold=()
):
    """New parameters from the posteriors; `design` is `irls.design(x)`, `family` of `family_of`."""
    new = family.m_step(params, design, y, post.resp, ridge, irls_steps)
    for level in range(1, len(post.h) + 1):
        new |= fit_gates(
            params, design, post, level, gates=gates, ridge=ridge, irls_steps=irls_steps, clip=clip
        )
    return {name: params[name] if name in hold else new[name] for name in params}


def fit_gates(params, design, post, level, *, gates="irls", ridge=0.0, irls_steps=1, clip=CLIP):
    """The M step of one level's gates: {"U{level}", "c{level}"}. Branches that are not there (c =
    −inf) stay away.
    """
    h = post.h[level - 1]
    above = post.joint[level - 2].reshape(len(h), -1) if level > 1 else np.ones((len(h), 1))
    U, c = params[f"U{level}"].copy(), params[f"c{level}"].copy()
    patterns, which = np.unique(np.isfinite(c), axis=0, return_inverse=True)
    for i, there in enumerate(
        patterns
    ):  # gates with the same branches together: in an even tree all of them
        if there.sum() == 1:
            continue  # one branch: nothing to decide
        own, at = slice(None), (slice(None), slice(None))
        if not (len(patterns) == 1 and there.all()):
            own = np.flatnonzero(which.ravel() == i)
            at = np.ix_(own, np.flatnonzero(there))
        if gates == "irls":
            start = np.concatenate([U[:, *at].transpose(1, 0, 2), c[at][:, None, :]], axis=1)
            options = {"start": start, "ridge": ridge, "max_steps": irls_steps}
            coef, _ = irls.multinomial_irls(design, h[:, *at], above[:, own], **options)
        else:
            coef = least_squares_gates(design, h[:, *at], above[:, own], ridge=ridge, clip=clip)
        U[:, *at], c[at] = coef[:, :-1].transpose(1, 0, 2), coef[:, -1]
    return {f"U{level}": U, f"c{level}": c}


def least_squares_gates(design, h, weight, *, ridge=0.0, clip=CLIP):
    """Algorithm 2: coef (P, D + 1, b) of the weighted least squares fit of log h (N, P, b), weight
    (N, P).

    Only differences of logits count, so log h is taken about its mean over the branches; of two
    branches the fit is then that of their log ratio, which is kept within ±clip.
    """
    N, P, b = h.shape
    target, K = log_ratio(h, clip), len(design.xt)
    a = irls.gram(design, weight.T)
    a[:, range(K - 1), range(K - 1)] += ridge
    right = design.xt @ (target * weight[:, :, None]).reshape(N, P * b)
    return irls.from_centre(irls.solve(a, right.reshape(K, P, b).swapaxes(0, 1)), design.mean)


def log_ratio(h, clip):
    """log h less its mean over the branches (last axis), within ±clip/2."""
    log_h = np.log(np.maximum(h, np.finfo(h.dtype).tiny))
    return np.clip(log_h - log_h.mean(axis=-1, keepdims=True), -clip / 2, clip / 2)


# --- Training -------------------------------------------------------------------------------------


def train(params, x, y, *, gates="irls", ridge=0.0, irls_steps=1, clip=CLIP, hold=()):
    """EM: yields a `hme.Step` after 0, 1, 2, ... M steps, without end; its cache has the E step
    that was just made.

    gates       "irls" (Algorithm 1) or "least squares" (Algorithm 2)
    irls_steps  Newton steps a gate takes in one M step, halved where they must be: with one already the likelihood
                never falls (with a ridge, the penalised likelihood)
    hold        names that stay as they are, e.g. ("var",)
    """
    options = {"gates": gates, "ridge": ridge, "irls_steps": irls_steps, "clip": clip, "hold": hold}
    params, x, y, design, family = _start(params, x, y, **options)
    for number in itertools.count():
        loss, cache = e_step(params, x, y)
        yield Step(number, float(loss.sum()), params, cache)
        params = m_step(params, design, y, cache.post, family=family, **options)


def _start(params, x, y, *, gates, ridge, irls_steps, clip, hold):
    """The public door."""
    checks.choice("gates", gates, GATES)
    checks.number("ridge", ridge, minimum=0)
    checks.number("clip", clip, above=0)
    checks.integer("irls_steps", irls_steps)
    params, x, y = hme.checked(params, x, y)
    for name in hold:
        checks.choice("hold", name, tuple(params))
    family, y = family_of(params, y, hold)
    return params, x, y, irls.design(x), family
