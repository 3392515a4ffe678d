"""Step view of EM for a hierarchical mixture of experts (`moe_np.mixtures.hme_em`): posteriors
level by level, then the regressions.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayNC, ArrayND, Params
from moe_np.mixtures import hme, hme_em
from moe_np.show.steps import State, state

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


def steps(
    params: Params,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    *,
    max_iter: int = 100,
    gates: str = "irls",
    ridge: float = 0.0,
    irls_steps: int = 1,
    clip: float = hme_em.CLIP,
    hold: tuple[str, ...] = (),
) -> Iterator[State]:
    """`max_iter` iterations of `hme_em.train`, a State at a time, and a last E step.

    "start"; "E step: experts", "E step: level L" up to "E step: level 1", "E step: leaves"; "M
    step: experts", "M step: level 1" and so on down; then the next E step. Levels count from the
    top; g1 and h1 belong to the top gate. Arguments as in `hme_em.train`.
    """
    options = {"gates": gates, "ridge": ridge, "irls_steps": irls_steps, "clip": clip}
    problem = hme_em.prepare(params, x, y, hold=hold, **options)
    checks.integer("max_iter", max_iter, minimum=0)
    params = problem.params
    levels = range(1, hme.depth(params) + 1)
    axes = _axes(params, levels)
    note = f"A tree with branches {hme.branching(params)}."
    current = state("start", "", params, axes=axes, note=note)
    yield current
    for number in itertools.count():
        # E step.
        loss, cache = hme_em.e_step(params, problem.x, problem.y)
        arrays = dict(params)
        for phase, equation, computed, note in _e_step_phases(cache, loss):
            arrays |= computed
            current = state(phase, equation, arrays, axes=axes, note=note, before=current)
            yield current
        if number == max_iter:
            return
        # M step of the experts.
        resp = cache.post.resp
        new = problem.family.m_step(params, problem.design, problem.y, resp, ridge, irls_steps)
        params = _updated(params, new, hold)
        arrays = {**arrays, **params}
        note = "One regression per expert; its responsibilities are the weights of the cases."
        current = state("M step: experts", EXPERTS, arrays, axes=axes, note=note, before=current)
        yield current
        # M step of the gates, level by level.
        for level in levels:
            new = hme_em.fit_gates(params, problem.design, cache.post, level, **options)
            params = _updated(params, new, hold)
            arrays = {**arrays, **params}
            phase = f"M step: level {level}"
            equation = _equation_of_gates(gates, level)
            note = "The gates of this level learn to predict h from x, each on its cases."
            current = state(phase, equation, arrays, axes=axes, note=note, before=current)
            yield current


def _axes(params, levels):
    axes = {**AXES, **{f"{name}{level}": a for name, a in LEVEL_AXES.items() for level in levels}}
    if "var" in params:
        axes["var"] = VAR_AXES[np.ndim(params["var"])]
    return axes


def _updated(params, new, hold):
    return {**params, **{name: value for name, value in new.items() if name not in hold}}


def _equation_of_gates(gates, level):
    if gates != "irls":
        return LEAST_SQUARES
    return GATES_TOP if level == 1 else GATES_BELOW


def _e_step_phases(cache, loss):
    """(phase, equation, new arrays, note) of the parts of an E step, up the tree and down again."""
    arrays = {f"g{level}": g for level, g in enumerate(cache.g, start=1)}
    arrays |= {"mu": cache.mu, "log_density": cache.log_density}
    note = "The outputs of the gates, and the density of y under each expert."
    yield "E step: experts", DENSITY, arrays, note
    post = cache.post
    for level in range(len(cache.g), 0, -1):
        arrays = {f"h{level}": post.h[level - 1], f"evidence{level}": post.evidence[level - 1]}
        note = (
            "Bayes' rule at each gate of this level; its evidence is the likelihood one level up."
        )
        yield f"E step: level {level}", TOP if level == 1 else NESTED, arrays, note
    arrays = {"resp": post.resp, "log_likelihood": -loss.sum()}
    note = "Down the tree: the responsibility of each expert for each case."
    yield "E step: leaves", LEAVES, arrays, note
