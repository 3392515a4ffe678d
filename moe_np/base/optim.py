"""Steps: pure functions from (parameters, gradients) to new parameters.

`params` and `grads` are dicts of arrays with the same keys and shapes. Nothing is changed in place,
so a caller can keep every step of a trajectory. dtype follows the parameters. `lr` is the step size
η; gradients are of the loss as the caller scaled it.
"""

import math
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import choice


def gradient_descent(params, grads, *, lr):
    """p ← p − η g."""
    return {k: p - lr * grads[k] for k, p in params.items()}


def momentum(params, grads, velocity=None, *, lr, beta=0.9):
    """v ← β v + g, p ← p − η v (Polyak 1964). Returns (params, velocity); `velocity=None` starts at
    rest.
    """
    if velocity is None:
        velocity = {k: np.zeros_like(p) for k, p in params.items()}
    velocity = {k: beta * velocity[k] + grads[k] for k in params}
    return gradient_descent(params, velocity, lr=lr), velocity


class AdamState(NamedTuple):
    t: int  # steps taken
    m: dict  # running mean of g
    v: dict  # running mean of g²


def adam(params, grads, state=None, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """p ← p − η m̂ / (√v̂ + ε) (Kingma and Ba 2015, Algorithm 1). Returns (params, AdamState).

    m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ).
    `weight_decay` λ adds λ p to the gradient before the means (the L2 form, not AdamW's decoupled one).
    """
    if state is None:
        state = AdamState(
            0,
            {k: np.zeros_like(p) for k, p in params.items()},
            {k: np.zeros_like(p) for k, p in params.items()},
        )
    t = state.t + 1
    new, m, v = {}, {}, {}
    for k, p in params.items():
        g = grads[k] + weight_decay * p if weight_decay else grads[k]
        m[k] = beta1 * state.m[k] + (1 - beta1) * g
        v[k] = beta2 * state.v[k] + (1 - beta2) * g * g
        new[k] = p - lr / (1 - beta1**t) * m[k] / (np.sqrt(v[k]) / math.sqrt(1 - beta2**t) + eps)
    return new, AdamState(t, m, v)


def expert_norms(grads, norm="sum"):
    """The length of each expert's gradient, the divisor of `normalised_step`: {name: (E,)}.

    Axis 0 of every array is the expert. norm is
        "sum"        Σ over an expert's arrays of ‖g‖ (the published code of Chen et al. 2022: ‖dW‖ + ‖db‖)
        "joint"      √ of the sum of squares over all of an expert's arrays (the Frobenius norm of the paper)
        "parameter"  each array by its own norm
    """
    choice("norm", norm, ("sum", "joint", "parameter"))
    own = {k: np.sqrt((g * g).reshape(len(g), -1).sum(axis=1)) for k, g in grads.items()}
    if norm == "parameter":
        return own
    if norm == "sum":
        total = sum(own.values())
    else:
        total = np.sqrt(sum(n * n for n in own.values()))
    return dict.fromkeys(grads, total)


def normalised_step(params, grads, *, lr, norm="sum"):
    """p_m ← p_m − η g_m / ‖g_m‖ for each expert m (Chen et al. 2022, Algorithm 1).

    Every expert moves by the same length however few tokens it got. An expert whose gradient is
    exactly 0 (no token) stays where it is.
    """
    norms = expert_norms(grads, norm)
    new = {}
    for k, p in params.items():
        n = np.where(norms[k] > 0, norms[k], 1).reshape((-1,) + (1,) * (p.ndim - 1))
        new[k] = p - lr * (grads[k] / n)
    return new
