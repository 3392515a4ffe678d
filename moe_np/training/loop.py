"""The training loop of whole models: draw a minibatch, compute loss and gradients, clip, update.

    state = loop.initial_state(params)
    for step in loop.train(state, gradients_of, minibatch_of, options):
        print(step.number, step.losses.task, step.gradient_norm)

    gradients_of   (params, minibatch, rng) -> (losses, grads): a model's `loss_and_grads`. `losses`
                   is a NamedTuple with at least `task`, the mean over valid targets in nats, and
                   `tokens`, their number
    minibatch_of   (rng) -> what `gradients_of` takes

An update is that of AdamW (Loshchilov and Hutter 2019) on gradients that were clipped by one global
norm, with a learning rate that rises linearly and falls as a cosine (`moe_np.base.optim`).

**Same bits after an interruption.** All that is random in an update is drawn from a generator that
is made of the seed and the number of the update. So a `State` is everything: training that goes on
from a stored state gives the same bits as training that was never interrupted.

**Gradient accumulation.** The gradients of `micro_batches` minibatches are added up over valid
targets and make one update. Balance losses are the exception, because they are not linear in the
tokens (errata 26): each micro-batch has its own.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks, optim
from moe_np.base.checks import InputError
from moe_np.base.optim import AdamState, AdamWFactors
from moe_np.base.params import leaves, map_leaves
from moe_np.base.types import Array, Rng


class Options(NamedTuple):
    """What determines a training run, besides the model and the data."""

    updates: int  # number of updates in the whole run; the learning rate ends with it
    learning_rate: float = 3e-3  # the highest
    warmup: int = 40  # updates until the highest learning rate
    final: float = 0.1  # the last learning rate, as a share of the highest
    weight_decay: float = 0.1
    clip: float = 1.0  # the largest global norm of the gradients
    micro_batches: int = 1  # minibatches per update
    seed: int = 0


class State(NamedTuple):
    """Where training stands; with `Options` and the data it determines all later updates."""

    number: int  # updates made
    params: Any
    optimiser: AdamState


class Step(NamedTuple):
    """What one update did."""

    number: int  # updates made, this one included
    losses: Any  # of the model, before the update; of several micro-batches the last, see `train`
    tokens: int  # valid targets of the update
    gradient_norm: float  # before clipping
    learning_rate: float
    state: State  # after the update; the next update overwrites its arrays


class UpdateError(InputError):
    """The model refused what it got in update `number`, such as numbers that became too large."""

    def __init__(self, number: int, message: str):
        super().__init__(f"update {number}: {message}")
        self.number = number


class NotFiniteError(UpdateError):
    """A parameter, the loss or a gradient is NaN or infinite in update `number`.

    `where` says which of them: of several the one where it began, in the order of computation. So
    of the gradients it is the one that is nearest to the loss.
    """

    def __init__(self, number: int, where: str):
        super().__init__(number, f"wanted finite numbers, got NaN or infinity in {where}")
        self.where = where


def initial_state(params: Any) -> State:
    """The state before the first update, with arrays of its own: `params` are not changed."""
    copies = map_leaves(lambda p: np.array(p, order="C"), params)
    zeros = AdamState(0, map_leaves(np.zeros_like, copies), map_leaves(np.zeros_like, copies))
    return State(0, copies, zeros)


def train(
    state: State,
    gradients_of: Callable[[Any, Any, Rng], tuple[Any, Any]],
    minibatch_of: Callable[[Rng], Any],
    options: Options,
    *,
    decays: Callable[[str], bool] = optim.decays_by_name,
    update: Callable[..., None] | None = None,
) -> Iterator[Step]:
    """An iterator of steps, until `options.updates` updates are made.

    state    from `initial_state`, or one that was stored; its arrays are overwritten
    decays   which leaves, by their path, have weight decay
    update   of one leaf, as in `optim.adamw`; None: the compiled one where there is one

    `step.losses` has the mean of the task's loss over the valid targets of all micro-batches, and
    everything else from the last one.
    Raises UpdateError, which is an InputError, where the model refuses its numbers, and among them
    NotFiniteError where the loss or a gradient is not finite. Then no update was made, and `state`
    of the step before is the last one.
    """
    check(options)
    while state.number < options.updates:
        number = state.number + 1
        rng = np.random.default_rng([options.seed, number])
        losses, grads, tokens = _gradients(
            state.params, gradients_of, minibatch_of, rng, options.micro_batches, number
        )
        norm = optim.global_norm(grads)
        if not math.isfinite(norm):
            path = _not_finite(reversed(list(leaves(grads).items())))  # as backpropagation goes
            where = f"the gradient of {path}" if path else "the norm of the gradients"
            raise NotFiniteError(number, where)
        state, learning_rate = updated(
            state, grads, norm, options, decays=decays, update=update or update_leaf
        )
        yield Step(number, losses, tokens, norm, learning_rate, state)


def update_leaf(p: Array, g: Array, m: Array, v: Array, factors: AdamWFactors) -> None:
    """`optim.adamw_update` of one leaf, compiled where there is Numba: p, m, v are overwritten."""
    compiled = kernels.compiled(p.dtype)
    (kernels.optim.update if compiled else optim.adamw_update)(p, g, m, v, factors)


def updated(
    state: State,
    grads: Any,
    norm: float,
    options: Options,
    *,
    decays: Callable[[str], bool] = optim.decays_by_name,
    update: Callable[..., None] | None = None,
) -> tuple[State, float]:
    """One update by AdamW with clipped gradients: -> the new State, and its learning rate. The
    arrays of `state` are overwritten.

    norm     the global norm of the gradients, before clipping
    update   of one leaf, as in `optim.adamw`
    """
    learning_rate = optim.warmup_cosine(
        state.number,
        peak=options.learning_rate,
        warmup=min(options.warmup, options.updates - 1),
        total=options.updates,
        final=options.final * options.learning_rate,
    )
    params, optimiser = optim.adamw(
        state.params,
        grads,
        state.optimiser,
        lr=learning_rate,
        weight_decay=options.weight_decay,
        decays=decays,
        scale=optim.clip_scale(norm, options.clip),
        in_place=True,
        update=update,
    )
    return State(state.number + 1, params, optimiser), learning_rate


def _gradients(params, gradients_of, minibatch_of, rng, micro_batches, number):
    """Losses, gradients and valid targets of one update, over all of its micro-batches."""
    task = 0.0
    tokens = 0
    losses = None

    def micro_batch():
        nonlocal task, tokens, losses
        try:
            losses, grads = gradients_of(params, minibatch_of(rng), rng)
        except InputError as error:
            if path := _not_finite(leaves(params).items()):
                raise NotFiniteError(number, f"the parameter {path}") from error
            raise UpdateError(number, str(error)) from error
        if not math.isfinite(losses.task):
            raise NotFiniteError(number, "the loss")
        task += losses.task * losses.tokens
        tokens += losses.tokens
        return grads, losses.tokens

    if micro_batches == 1:
        grads, _ = micro_batch()
    else:
        grads, _ = optim.accumulate(micro_batch() for _ in range(micro_batches))
    assert losses is not None  # there is at least one micro-batch
    return losses._replace(task=task / max(tokens, 1)), grads, tokens


def _not_finite(arrays):
    """The path of the first array that has NaN or infinity; None without one."""
    paths = (path for path, array in arrays if not np.isfinite(array).all())
    return next(paths, None)


def check(options: Options) -> Options:
    """Raise InputError for an option that training cannot use; return the options."""
    checks.integer("updates", options.updates, minimum=1)
    checks.integer("warmup", options.warmup, minimum=0)
    checks.integer("micro_batches", options.micro_batches, minimum=1)
    checks.integer("seed", options.seed, minimum=0)
    checks.number("learning_rate", options.learning_rate, greater_than=0)
    checks.number("final", options.final, minimum=0, maximum=1)
    checks.number("weight_decay", options.weight_decay, minimum=0)
    checks.number("clip", options.clip, greater_than=0)
    return options
