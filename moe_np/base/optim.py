"""Optimisers: gradient descent, momentum, Adam, and Chen et al.'s normalised gradient descent.

Each is a pure function from (parameters, gradients) to new parameters: nothing is changed in place,
so a caller can keep every update of a trajectory. What an optimiser remembers from one update to
the next is passed in and returned. `params` and `grads` are dicts of arrays with the same keys and
shapes; the dtype follows the parameters.

    paper   here           meaning
    η       lr             learning rate
    g       grads          gradient of the loss, as the caller scaled it (backpropagation)
    β       beta           momentum coefficient
    λ       weight_decay   weight decay, the coefficient of L2 regularisation ½ λ ‖p‖²
"""

import math
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import choice, number
from moe_np.base.types import ArrayE, Params


def gradient_descent(params: Params, grads: Params, *, lr: float) -> Params:
    """p ← p − η g."""
    lr = number("lr", lr)  # a float: a NumPy number would change the dtype
    return {k: p - lr * grads[k] for k, p in params.items()}


def momentum(
    params: Params, grads: Params, velocity: Params | None = None, *, lr: float, beta: float = 0.9
) -> tuple[Params, Params]:
    """v ← β v + g, p ← p − η v (Polyak 1964). Returns (params, velocity).

    `velocity=None` means zero, before the first update.
    """
    if velocity is None:
        velocity = {k: np.zeros_like(p) for k, p in params.items()}
    beta = number("beta", beta)
    velocity = {k: beta * velocity[k] + grads[k] for k in params}
    return gradient_descent(params, velocity, lr=lr), velocity


class AdamState(NamedTuple):
    """What Adam remembers from one update to the next."""

    t: int  # number of updates made
    m: Params  # running mean of g
    v: Params  # running mean of g²


def adam(
    params: Params,
    grads: Params,
    state: AdamState | None = None,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Params, AdamState]:
    """p ← p − η m̂ / (√v̂ + ε) (Kingma and Ba 2015, Algorithm 1). Returns (params, AdamState).

    m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ).
    `weight_decay` λ adds λ p to the gradient before the means (L2 regularisation; AdamW decouples
    the two). `state=None` means zero means, before the first update.
    """
    if state is None:
        zeros = {k: np.zeros_like(p) for k, p in params.items()}
        state = AdamState(0, zeros, zeros)
    lr = number("lr", lr)
    weight_decay = number("weight_decay", weight_decay)
    beta1 = number("beta1", beta1, minimum=0, less_than=1)
    beta2 = number("beta2", beta2, minimum=0, less_than=1)
    t = state.t + 1
    new: Params = {}
    m: Params = {}
    v: Params = {}
    for k, p in params.items():
        g = grads[k] + weight_decay * p if weight_decay else grads[k]
        m[k] = beta1 * state.m[k] + (1 - beta1) * g
        v[k] = beta2 * state.v[k] + (1 - beta2) * g * g
        new[k] = p - lr / (1 - beta1**t) * m[k] / (np.sqrt(v[k]) / math.sqrt(1 - beta2**t) + eps)
    return new, AdamState(t, m, v)


def expert_norms(grads: Params, norm: str = "sum") -> dict[str, ArrayE]:
    """The norm of each expert's gradient, {name: (E,)}; axis 0 of every array is the expert.

    `normalised_gradient_descent` divides by it. `norm` is one of

        "sum"        Σ of ‖g‖ over an expert's arrays, ‖dW‖ + ‖db‖: the published code of
                     Chen et al. 2022
        "joint"      √ of the sum of squares over an expert's arrays: the Frobenius norm of
                     their paper
        "parameter"  each array is divided by its own norm

    Raises InputError for another norm.
    """
    choice("norm", norm, ("sum", "joint", "parameter"))
    norms = {k: np.sqrt((g * g).reshape(len(g), -1).sum(axis=1)) for k, g in grads.items()}
    if norm == "parameter":
        return norms
    if norm == "sum":
        total = np.asarray(sum(norms.values()))
    else:
        total = np.sqrt(sum(n * n for n in norms.values()))
    return dict.fromkeys(grads, total)


def normalised_gradient_descent(
    params: Params, grads: Params, *, lr: float, norm: str = "sum"
) -> Params:
    """p_m ← p_m − η g_m / ‖g_m‖ for each expert m (Chen et al. 2022, Algorithm 1).

    Every expert moves by the same length, whatever number of tokens it received. An expert whose
    gradient is exactly 0 (no token) does not move. `norm` as in `expert_norms`.
    """
    lr = number("lr", lr)
    norms = expert_norms(grads, norm)
    new = {}
    for k, p in params.items():
        n = np.where(norms[k] > 0, norms[k], 1).reshape((-1,) + (1,) * (p.ndim - 1))
        new[k] = p - lr * (grads[k] / n).astype(p.dtype, copy=False)
    return new
