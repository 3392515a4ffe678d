"""EM for hierarchical mixtures: Jordan and Jacobs (1994), Algorithms 1 and 2.

E step: the posteriors h of all branches (hme.posterior). M step: each expert and each gate by itself, a regression
on the same inputs,

    experts         least squares of y with weights h_ij; the variances from the weighted residuals
                    (labels: weighted logistic regression)
    top gate        logistic regression of h_i, by IRLS
    gates below     logistic regression of h_j|i with weights h_i, and so on down the tree

which is Algorithm 1: the likelihood never falls. Algorithm 2 has for the gates one weighted least squares on log h
instead: another estimate, not a maximum, so the likelihood may fall.
All gates of a level are one call of irls.py, all experts another.
"""

import itertools

import numpy as np

from moe_np import checks
from moe_np.mixtures import hme, irls
from moe_np.mixtures.em_families import Categorical, Gaussian
from moe_np.mixtures.hme import Step
from moe_np.steps import state

GATES = ("irls", "least squares")
CLIP = 10.0  # of the log ratio that Algorithm 2 fits: h of 0 has no logarithm

e_step = irls.one_thread(hme.forward)  # (params, x, y) -> (loss (N,), cache)

# --- M step -----------------------------------------------------------------------------------------------------------


def family_of(params, y, hold=()):
    """(family, y): what kind of experts these parameters are, as em_families.py has them."""
    if "var" not in params:
        return Categorical(params["b"].shape[1]).resolve(y)
    ndim = np.ndim(params["var"])
    return Gaussian("fixed" if "var" in hold else {0: "shared", 1: "expert", 3: "full"}[ndim]).resolve(y)


@irls.one_thread
def m_step(params, design, y, post, *, family, gates="irls", ridge=0.0, irls_steps=1, clip=CLIP, hold=()):
    """New parameters from the posteriors; `design` is `irls.design(x)`, `family` of `family_of`."""
    new = family.m_step(params, design, y, post.resp, ridge, irls_steps)
    for level in range(1, len(post.h) + 1):
        new |= fit_gates(params, design, post, level, gates=gates, ridge=ridge, irls_steps=irls_steps, clip=clip)
    return {name: params[name] if name in hold else new[name] for name in params}


def fit_gates(params, design, post, level, *, gates="irls", ridge=0.0, irls_steps=1, clip=CLIP):
    """The M step of one level's gates: {"U{level}", "c{level}"}. Branches that are not there (c = −inf) stay away."""
    h = post.h[level - 1]
    above = post.joint[level - 2].reshape(len(h), -1) if level > 1 else np.ones((len(h), 1))
    U, c = params[f"U{level}"].copy(), params[f"c{level}"].copy()
    patterns, which = np.unique(np.isfinite(c), axis=0, return_inverse=True)
    for i, there in enumerate(patterns):  # gates with the same branches together: in an even tree all of them
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
    """Algorithm 2: coef (P, D + 1, b) of the weighted least squares fit of log h (N, P, b), weight (N, P).

    Only differences of logits count, so log h is taken about its mean over the branches; of two branches the fit is
    then that of their log ratio, which is kept within ±clip.
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


# --- Training ---------------------------------------------------------------------------------------------------------


def train(params, x, y, *, gates="irls", ridge=0.0, irls_steps=1, clip=CLIP, hold=()):
    """EM: yields a `hme.Step` after 0, 1, 2, ... M steps, without end; its cache has the E step that was just made.

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


# --- One step at a time -----------------------------------------------------------------------------------------------

DENSITY = r"P_{ij} = P(y \mid x, W_{ij}, b_{ij})"
NESTED = r"h_{j|i} = \frac{g_{j|i} P_{ij}}{\sum_k g_{k|i} P_{ik}}"
TOP = r"h_i = \frac{g_i \sum_j g_{j|i} P_{ij}}{\sum_k g_k \sum_j g_{j|k} P_{kj}}"
LEAVES = r"h_{ij} = h_i \, h_{j|i}"
EXPERTS = r"W_{ij}, b_{ij} \text{ raise } \sum_n h_{ij} \log P_{ij}"
GATES_TOP = r"U, c \text{ raise } \sum_n \sum_i h_i \log g_i"
GATES_BELOW = r"U, c \text{ raise } \sum_n h_i \sum_j h_{j|i} \log g_{j|i}"
LEAST_SQUARES = r"U, c \leftarrow \arg\min \sum_n h_i \big( \log h_{j|i} - (x_n U_j + c_j) \big)^2"
AXES = {"W": "E D C", "b": "E C", "mu": "N E C", "log_density": "N E", "resp": "N E"}
LEVEL_AXES = {"U": "D P b", "c": "P b", "g": "N P b", "h": "N P b", "evidence": "N P"}
VAR_AXES = {0: (), 1: ("E",), 3: ("E", "C", "C")}


def steps(params, x, y, *, max_iter=100, gates="irls", ridge=0.0, irls_steps=1, clip=CLIP, hold=()):
    """`max_iter` rounds of `train`, a State at a time, and a last E step.

    "start"; "E step: experts", "E step: level L" up to "E step: level 1", "E step: leaves"; "M step: experts", "M step:
    level 1" and so on down; then the next E step. Levels count from the top; g1, h1 are the top gate's.
    """
    options = {"gates": gates, "ridge": ridge, "irls_steps": irls_steps, "clip": clip}
    params, x, y, design, family = _start(params, x, y, hold=hold, **options)
    checks.integer("max_iter", max_iter, minimum=0)
    levels = range(1, hme.depth(params) + 1)
    axes = {**AXES, **{f"{name}{level}": a for name, a in LEVEL_AXES.items() for level in levels}}
    if "var" in params:
        axes["var"] = VAR_AXES[np.ndim(params["var"])]
    now = state("start", "", params, axes=axes, note=f"A tree with branches {hme.branching(params)}.")
    yield now
    for number in range(max_iter + 1):
        loss, cache = e_step(params, x, y)
        arrays = dict(params)
        for phase, equation, more, note in _expectation(cache, loss):
            arrays |= more
            now = state(phase, equation, arrays, axes=axes, note=note, before=now)
            yield now
        if number == max_iter:
            return
        new = family.m_step(params, design, y, cache.post.resp, ridge, irls_steps)
        params = {**params, **{name: value for name, value in new.items() if name not in hold}}
        note = "Each expert by itself, every case counting as much as the expert is responsible for it."
        now = state("M step: experts", EXPERTS, {**arrays, **params}, axes=axes, note=note, before=now)
        yield now
        for level in levels:
            new = fit_gates(params, design, cache.post, level, **options)
            params = {**params, **{name: value for name, value in new.items() if name not in hold}}
            equation = LEAST_SQUARES if gates != "irls" else GATES_TOP if level == 1 else GATES_BELOW
            note = "The gates of this level learn to foretell h from x, each on its own cases."
            now = state(f"M step: level {level}", equation, {**arrays, **params}, axes=axes, note=note, before=now)
            yield now


def _expectation(cache, loss):
    """(phase, equation, new arrays, note) of each part of an E step, from the leaves up and down again."""
    more = {f"g{level}": g for level, g in enumerate(cache.g, start=1)}
    more |= {"mu": cache.mu, "log_density": cache.log_density}
    yield "E step: experts", DENSITY, more, "What the gates believe, and how likely y is under each expert."
    for level in range(len(cache.g), 0, -1):
        more = {f"h{level}": cache.post.h[level - 1], f"evidence{level}": cache.post.evidence[level - 1]}
        note = "Bayes' rule at each gate of this level; its evidence is the likelihood one level up."
        yield f"E step: level {level}", TOP if level == 1 else NESTED, more, note
    more = {"resp": cache.post.resp, "log_likelihood": -loss.sum()}
    yield "E step: leaves", LEAVES, more, "Down the tree: the share of each expert in each case."
