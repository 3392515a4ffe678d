"""This package in the bench of whole models: the decoder with experts, and the dense one.

A contestant is prepare(workload) -> (call, result): `call()` is what is timed, `result` is a number
or an array from which one sees whether contestants compute the same.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from moe_np.base import optim
from moe_np.base.types import Array
from moe_np.experiments.model_speed.workload import (
    BALANCE,
    CLIP,
    UPDATE,
    Workload,
    config_of,
    params_of,
    text_of,
)
from moe_np.layers import balance
from moe_np.models import decoder, generation
from moe_np.training import loop

Prepared: TypeAlias = tuple[Callable[[], Any], Array]


def mixture(w: Workload) -> Prepared:
    """The decoder with experts."""
    return _prepare(w, dense=False)


def dense(w: Workload) -> Prepared:
    """The decoder with one feed-forward network per layer."""
    return _prepare(w, dense=True)


def _prepare(w, dense):
    config = config_of(w, dense)
    params = params_of(w, dense)
    ids, targets = text_of(w)
    workspace = {}
    if w.what == "train":
        return _training(params, ids, targets, config, workspace)
    if w.what == "prefill":

        def prefill():
            return decoder.forward(params, ids, config, workspace=workspace)[0]

        return prefill, prefill()[0, -1]

    def generate():
        tokens = generation.generate(params, ids, config, tokens=w.length, temperature=0)
        return np.stack([token.ids for token in tokens], axis=1)

    return generate, generate()[:, 0]


def _training(params, ids, targets, config, workspace):
    state = loop.initial_state(params)
    losses = ((BALANCE, balance.switch),)

    def step():
        nonlocal state
        loss, grads = decoder.loss_and_grads(
            state.params, ids, targets, config, losses=losses, workspace=workspace
        )
        scale = optim.clip_scale(optim.global_norm(grads), CLIP)
        options = {"scale": scale, "in_place": True, "update": loop.update_leaf, **UPDATE}
        params, optimiser = optim.adamw(state.params, grads, state.optimiser, **options)
        state = loop.State(state.number + 1, params, optimiser)
        return loss.task

    return step, np.array(step())
