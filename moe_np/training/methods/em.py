"""EM as a training method: E and M steps, with partial M steps where no exact fit is available.

Jordan and Jacobs 1994, section 4.

    E step    resp_i = p_i f_i / Σ_j p_j f_j                 one forward pass of the mixture
    M step    each expert maximises Q_i = (1/N) Σ_n resp_i log f_i, independently of the others;
              the gate maximises Q_g = (1/N) Σ_n Σ_i resp_i log p_i, a softmax regression on the
              responsibilities

Where a problem has `fit_experts` or `fit_gate` (weighted least squares, IRLS: `moe_np.mixtures`),
they are used. Elsewhere the M step is partial: a few steps of gradient ascent, each expert with a
step size that is halved until its Q rises. That is a generalised EM (Dempster, Laird and Rubin
1977): both kinds raise the bound, so the likelihood never falls, and there is no learning rate.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import log_softmax
from moe_np.base.types import Array, ArrayNE, Params, Rng
from moe_np.training.methods import method
from moe_np.training.methods.method import MixtureParams, Problem, Step

Blocks = Annotated[np.ndarray, "B"]  # one number per expert, or a single one for the gate
Objective = Callable[[Params], tuple[Blocks, Callable[[], Params]]]

SUFFICIENT = 1e-4  # Armijo: the rise of Q must be at least this part of what the gradient promises
HALVINGS = 30  # after this many halvings a part keeps its parameters


def train(
    problem: Problem, rng: Rng | None, *, initial: MixtureParams | None = None, rounds: int = 3
) -> Iterator[Step]:
    """E and M steps. One pass for the E step, plus those of the fits.

    rounds    steps of gradient ascent in a partial M step
    """
    params = method.initial_params(problem, rng, initial)
    rounds = checks.integer("rounds", rounds)
    step_sizes: dict[str, Blocks | float] = dict.fromkeys(method.PARTS, 1.0)
    updated = ()
    passes = 1.0
    for number in itertools.count():
        # E step: cache.resp.
        loss, cache = method.forward(problem, params)
        yield Step(number, loss, updated, params, cache, passes)
        # M step: exact fits where the problem has them, otherwise gradient ascent.
        new = {}
        if problem.fit_experts is not None:
            fit = problem.fit_experts(params["experts"], problem.x, problem.y, cache.resp)
            new["experts"], experts_passes = fit
        else:
            objective = experts_objective(problem, cache.resp)
            ascended = ascend(objective, params["experts"], step_sizes["experts"], rounds)
            new["experts"], step_sizes["experts"], experts_passes = ascended
        if problem.fit_gate is not None:
            new["gate"], gate_passes = problem.fit_gate(params["gate"], problem.x, cache.resp)
        else:
            objective = gate_objective(problem, cache.resp)
            ascended = ascend(objective, params["gate"], step_sizes["gate"], rounds)
            new["gate"], step_sizes["gate"], gate_passes = ascended
        params = new
        updated = method.PARTS
        passes += experts_passes + gate_passes + 1


# --- A partial M step -----------------------------------------------------------------------------


def experts_objective(problem: Problem, resp: ArrayNE) -> Objective:
    """Q_i of each expert: a function params -> (Q (E,), gradient), and gradient() is ∂Q/∂params."""
    weight = resp / len(resp)

    def objective(experts):
        log_f, cache = method.log_densities(problem, experts)

        def gradient():
            return method.log_densities_backward(problem, weight, cache)

        return (weight * log_f).sum(axis=0), gradient

    return objective


def gate_objective(problem: Problem, resp: ArrayNE) -> Objective:
    """Q_g: the same for the gate, which is a single block, Q (1,)."""

    def objective(gate):
        logits, cache = problem.gate_forward(gate, problem.x)
        log_p = log_softmax(logits)

        def gradient():
            dlogits = -method.cross_entropy_backward(np.exp(log_p), resp)
            return problem.gate_backward(dlogits, cache)[1]

        return np.array([(resp * log_p).sum() / len(resp)]), gradient

    return objective


def ascend(
    objective: Objective, params: Params, step_sizes: Blocks | float, rounds: int
) -> tuple[Params, Blocks, float]:
    """`rounds` steps of gradient ascent in independent blocks: (params, step sizes (B,), passes).

    A block is one entry of axis 0, or all parameters where Q has one number. Every block doubles
    its step size after a success, and halves it until Q rises by Armijo's rule; a block without
    success in HALVINGS trials keeps its parameters. Each value and each gradient is half a pass.
    """
    value, gradient = objective(params)
    passes = 0.5
    step_sizes = np.broadcast_to(step_sizes, value.shape).astype(float)
    for _ in range(rounds):
        grads = gradient()
        squared = sum((g * g).reshape(len(value), -1).sum(axis=1) for g in grads.values())
        passes += 0.5
        pending = squared > 0
        for _ in range(HALVINGS):
            moves = np.where(pending, step_sizes, 0)
            trial = {k: params[k] + per_block(moves, g) * g for k, g in grads.items()}
            trial_value, _ = objective(trial)
            passes += 0.5
            enough = trial_value >= value + SUFFICIENT * step_sizes * squared
            accepted = pending & enough
            params = {k: np.where(per_block(accepted, a), trial[k], a) for k, a in params.items()}
            pending = pending & ~accepted
            step_sizes = np.where(pending, step_sizes / 2, step_sizes)
            if not pending.any():
                break
        value, gradient = objective(params)
        step_sizes = np.where(pending, step_sizes, 2 * step_sizes)
    return params, step_sizes, passes


def per_block(blocks: Blocks, a: Array) -> Array:
    """`blocks` (B,) in a shape that broadcasts with `a` (B, ...), or with all of `a` if B is 1."""
    if len(blocks) > 1:
        return blocks.reshape((-1,) + (1,) * (a.ndim - 1))
    return blocks.reshape((1,) * a.ndim)
