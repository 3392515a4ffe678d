"""Walks through EM of a tree of experts (`moe_np.mixtures.hme_em`): posteriors level by level, then the fits."""

import numpy as np

from moe_np.base import checks
from moe_np.mixtures import hme, hme_em
from moe_np.show.steps import state

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
    params, x, y, *, max_iter=100, gates="irls", ridge=0.0, irls_steps=1, clip=hme_em.CLIP, hold=()
):
    """`max_iter` rounds of `train`, a State at a time, and a last E step.

    "start"; "E step: experts", "E step: level L" up to "E step: level 1", "E step: leaves"; "M
    step: experts", "M step: level 1" and so on down; then the next E step. Levels count from the
    top; g1, h1 are the top gate's.
    """
    options = {"gates": gates, "ridge": ridge, "irls_steps": irls_steps, "clip": clip}
    params, x, y, design, family = hme_em._start(params, x, y, hold=hold, **options)
    checks.integer("max_iter", max_iter, minimum=0)
    levels = range(1, hme.depth(params) + 1)
    axes = {**AXES, **{f"{name}{level}": a for name, a in LEVEL_AXES.items() for level in levels}}
    if "var" in params:
        axes["var"] = VAR_AXES[np.ndim(params["var"])]
    now = state(
        "start", "", params, axes=axes, note=f"A tree with branches {hme.branching(params)}."
    )
    yield now
    for number in range(max_iter + 1):
        loss, cache = hme_em.e_step(params, x, y)
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
        now = state(
            "M step: experts", EXPERTS, {**arrays, **params}, axes=axes, note=note, before=now
        )
        yield now
        for level in levels:
            new = hme_em.fit_gates(params, design, cache.post, level, **options)
            params = {**params, **{name: value for name, value in new.items() if name not in hold}}
            equation = (
                LEAST_SQUARES if gates != "irls" else GATES_TOP if level == 1 else GATES_BELOW
            )
            note = "The gates of this level learn to foretell h from x, each on its own cases."
            now = state(
                f"M step: level {level}",
                equation,
                {**arrays, **params},
                axes=axes,
                note=note,
                before=now,
            )
            yield now


def _expectation(cache, loss):
    """(phase, equation, new arrays, note) of each part of an E step, from the leaves up and down
    again.
    """
    more = {f"g{level}": g for level, g in enumerate(cache.g, start=1)}
    more |= {"mu": cache.mu, "log_density": cache.log_density}
    yield (
        "E step: experts",
        DENSITY,
        more,
        "What the gates believe, and how likely y is under each expert.",
    )
    for level in range(len(cache.g), 0, -1):
        more = {
            f"h{level}": cache.post.h[level - 1],
            f"evidence{level}": cache.post.evidence[level - 1],
        }
        note = (
            "Bayes' rule at each gate of this level; its evidence is the likelihood one level up."
        )
        yield f"E step: level {level}", TOP if level == 1 else NESTED, more, note
    more = {"resp": cache.post.resp, "log_likelihood": -loss.sum()}
    yield "E step: leaves", LEAVES, more, "Down the tree: the share of each expert in each case."
