"""EM: say which expert answers for which case, fit everybody to that, and again (Jordan and Jacobs
1994, section 4).

    E step    resp_i = p_i f_i / Σ_j p_j f_j                         one look at all of the mixture
    M step    experts: each maximises Q_i = (1/N) Σ_n resp_i log f_i  weighted fits, which do not depend on each other
              gate:    maximises Q_g = (1/N) Σ_n Σ_i resp_i log p_i   a softmax regression on the responsibilities

Where a problem brings `fit_experts` or `fit_gate` (weighted least squares, IRLS: `moe_np.mixtures`)
these are used. Elsewhere the M step is partial: a few steps up the gradient, each expert with a
step size of its own that is halved until its Q rises. That is a generalised EM (Dempster, Laird and
Rubin 1977): both raise the bound, so that the likelihood never falls, and neither has a step size
to choose.
"""

import itertools

import numpy as np

from moe_np.base import checks
from moe_np.training.methods import method
from moe_np.training.methods.method import Step

SUFFICIENT = 1e-4  # Armijo: the rise of Q must be this share of what the gradient promises
HALVINGS = 30  # after so many a part stays as it is


def train(problem, rng, *, start=None, rounds=3):
    """E and M steps; a partial M step takes `rounds` steps up the gradient. One pass for the E
    step, plus the fits'.
    """
    params = method.begin(problem, rng, start)
    rounds = checks.integer("rounds", rounds)
    sizes, changed, passes = dict.fromkeys(method.PARTS, 1.0), (), 1.0
    for number in itertools.count():
        loss, cache = method.forward(problem, params)
        yield Step(number, loss, changed, params, cache, passes)
        new, used = {}, 0.0
        for part, fit, climbed in (
            ("experts", problem.fit_experts, experts_objective),
            ("gate", problem.fit_gate, gate_objective),
        ):
            if fit is None:
                objective = climbed(problem, cache.resp)
                new[part], sizes[part], cost = climb(objective, params[part], sizes[part], rounds)
            elif part == "experts":
                new[part], cost = fit(params[part], problem.x, problem.y, cache.resp)
            else:
                new[part], cost = fit(params[part], problem.x, cache.resp)
            used += cost
        params, changed, passes = new, method.PARTS, passes + used + 1


# --- a partial M step -----------------------------------------------------------------------------


def experts_objective(problem, resp):
    """Q_i of each expert: a function params -> (Q (E,), gradient), where gradient() gives
    ∂Q/∂params.
    """

    def objective(experts):
        log_f, cache = method.experts_forward(problem, experts)
        weights = resp / len(resp)
        return (weights * log_f).sum(axis=0), lambda: method.experts_backward(
            problem, weights, cache
        )

    return objective


def gate_objective(problem, resp):
    """Q_g: the same for the gate, which is one block, Q (1,)."""

    def objective(gate):
        logits, cache = problem.gate_forward(gate, problem.x)
        _, mixed = method.mix(np.zeros_like(logits), logits)
        value = (resp * method.log_softmax(logits)).sum() / len(resp)

        def gradient():
            dlogits = -method.cross_entropy_backward(mixed.p, resp)
            return problem.gate_backward(dlogits, cache)[1]

        return np.array([value]), gradient

    return objective


def climb(objective, params, sizes, rounds):
    """`rounds` steps up the gradient in independent blocks (axis 0, or everything if there is one
    block).

    Every block doubles its step after a success and halves it until Q rises as it should; a block
    that finds nothing in HALVINGS tries stays. Returns (params, sizes (blocks,), passes), half a
    pass for each look and each gradient.
    """
    value, gradient = objective(params)
    passes, sizes = 0.5, np.broadcast_to(sizes, value.shape).astype(float)
    for _ in range(rounds):
        grads = gradient()
        squared = sum((g * g).reshape(len(value), -1).sum(axis=1) for g in grads.values())
        todo, best = squared > 0, params
        passes += 0.5
        for _ in range(HALVINGS):
            move = np.where(todo, sizes, 0)
            trial = {k: best[k] + spread(move, g) * g for k, g in grads.items()}
            new, _ = objective(trial)
            passes += 0.5
            good = todo & (new >= value + SUFFICIENT * sizes * squared)
            best = {k: np.where(spread(good, a), trial[k], a) for k, a in best.items()}
            todo = todo & ~good
            sizes = np.where(todo, sizes / 2, sizes)
            if not todo.any():
                break
        params = best
        value, gradient = objective(params)
        sizes = np.where(todo, sizes, 2 * sizes)
    return params, sizes, passes


def spread(blocks, a):
    """blocks (B,) so shaped that it goes with a (B, ...), or with all of `a` where B = 1."""
    return (
        blocks.reshape((-1,) + (1,) * (a.ndim - 1))
        if len(blocks) > 1
        else blocks.reshape((1,) * a.ndim)
    )
