"""Optimisers: gradient descent, momentum, Adam, AdamW, and Chen et al.'s normalised gradient
descent; with clipping, a schedule of the learning rate and gradient accumulation.

Each is a pure function from (parameters, gradients) to new parameters: nothing is changed in place,
so a caller can keep every update of a trajectory. What an optimiser remembers from one update to
the next is passed in and returned. `params` and `grads` are dicts of arrays with the same keys and
shapes, nested ones (`moe_np.base.params`) where a model is meant; the dtype follows the parameters.

    paper   here           meaning
    η       lr             learning rate
    g       grads          gradient of the loss, as the caller scaled it (backpropagation)
    β       beta           momentum coefficient
    λ       weight_decay   weight decay, the coefficient of L2 regularisation ½ λ ‖p‖²
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice, integer, number
from moe_np.base.params import leaves, map_leaves
from moe_np.base.types import Array, ArrayE, Params


def gradient_descent(params: Params, grads: Params, *, lr: float) -> Params:
    """p ← p − η g."""
    lr = number("lr", lr)  # a float: a NumPy number would change the dtype
    return {k: _in_type_of(p, grads[k], p - lr * grads[k]) for k, p in params.items()}


def _in_type_of(p, g, new):
    """`new`; NumPy before version 2 computes float64 from numbers in float32 without axes."""
    return new.astype(np.result_type(p, g)) if isinstance(new, np.float64) else new


def momentum(
    params: Params, grads: Params, velocity: Params | None = None, *, lr: float, beta: float = 0.9
) -> tuple[Params, Params]:
    """v ← β v + g, p ← p − η v (Polyak 1964). Returns (params, velocity).

    `velocity=None` means zero, before the first update.
    """
    if velocity is None:
        velocity = {k: np.zeros_like(p) for k, p in params.items()}
    beta = number("beta", beta)
    velocity = {
        k: _in_type_of(velocity[k], grads[k], beta * velocity[k] + grads[k]) for k in params
    }
    return gradient_descent(params, velocity, lr=lr), velocity


class AdamState(NamedTuple):
    """What Adam and AdamW remember from one update to the next."""

    t: int  # number of updates made
    m: Any  # running mean of g, with the structure of the parameters
    v: Any  # running mean of g²


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
        root = np.sqrt(v[k]) / math.sqrt(1 - beta2**t)
        new[k] = _in_type_of(p, g, p - lr / (1 - beta1**t) * m[k] / (root + eps))
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


# --- AdamW ----------------------------------------------------------------------------------------

BLOCK = 1 << 14  # numbers at a time, so that all arrays of an update stay in the nearest caches


class AdamWFactors(NamedTuple):
    """The numbers of one update by AdamW, the same for all parameters of a leaf."""

    decay: float  # 1 − η λ
    beta1: float
    beta2: float
    step: float  # η / (1 − β₁ᵗ)
    root: float  # 1 / √(1 − β₂ᵗ)
    eps: float
    scale: float  # the gradient is multiplied by it: clipping without a pass of its own


def decays_by_name(path: str, *, embeddings: bool = True) -> bool:
    """Whether the leaf of this path has weight decay: all but gains of norms and biases, by name.

    Not by the number of axes: the biases of stacked experts have two (errata 28). Without decay are
    "g", "b", "b1", "bq", "bias" and the like as the last name, and a bias of positions.
    embeddings=False leaves out the embedding too.
    """
    names = path.split(".")
    if not embeddings and names[0] in ("embed", "embedding"):
        return False
    return "position_bias" not in names and not re.fullmatch(r"g|b[a-z0-9]?|bias\w*", names[-1])


def adamw(
    params: Any,
    grads: Any,
    state: AdamState | None = None,
    *,
    lr: float,
    weight_decay: float = 0.0,
    decays: Callable[[str], bool] = decays_by_name,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    scale: float = 1.0,
    in_place: bool = False,
    update: Callable[..., None] | None = None,
) -> tuple[Any, AdamState]:
    """p ← (1 − η λ) p − η m̂ / (√v̂ + ε) (Loshchilov and Hutter 2019, Algorithm 2).

    arXiv 1711.05101. m̂ and v̂ are those of `adam`; weight decay λ does not go through them.
    `params` and `grads` may be nested. Returns (params, AdamState).

    decays      path of a leaf -> whether it has weight decay
    scale       what gradients are multiplied by, such as `clip_scale` of their norm
    in_place    params and the means of the state are overwritten and returned, for large models
    update      update(p, g, m, v, factors) overwrites p, m and v of one leaf;
                `moe_np.kernels.optim.update` is the compiled one. None: `adamw_update`

    An expert without tokens has a gradient of 0, and moves even so: by its decay and by its running
    mean (errata 29). Raises InputError for gradients with other leaves or shapes.
    """
    if state is None:
        zeros = [map_leaves(lambda p: np.zeros(p.shape, p.dtype), params) for _ in "mv"]
        state = AdamState(0, *zeros)
    elif not in_place:
        state = AdamState(state.t, map_leaves(_copy, state.m), map_leaves(_copy, state.v))
    params = params if in_place else map_leaves(_copy, params)
    of_params = leaves(params)
    factors = _factors(state.t + 1, lr, weight_decay, betas, eps, scale)
    of_grads = _same_leaves("grads", grads, of_params)
    of_m = _same_leaves("state.m", state.m, of_params)
    of_v = _same_leaves("state.v", state.v, of_params)
    for path, p in of_params.items():
        of_leaf = factors if decays(path) else factors._replace(decay=1.0)
        (update or adamw_update)(p, of_grads[path], of_m[path], of_v[path], of_leaf)
    return params, state._replace(t=state.t + 1)


def adamw_update(p: Array, g: Array, m: Array, v: Array, factors: AdamWFactors) -> None:
    """One update of one leaf: p, m and v are overwritten, a block of numbers at a time."""
    decay, beta1, beta2, step, root, eps, scale = factors
    flat = [a.reshape(-1) for a in (p, g, m, v)]
    scratch = np.empty((2, min(BLOCK, p.size)), p.dtype)
    for low in range(0, p.size, BLOCK):
        p, g, m, v = (a[low : low + BLOCK] for a in flat)
        a, b = scratch[:, : len(p)]
        g = np.multiply(g, scale, out=a) if scale != 1 else g
        v *= beta2
        np.multiply(g, g, out=b)
        b *= 1 - beta2
        v += b
        m *= beta1
        np.multiply(g, 1 - beta1, out=a)
        m += a
        np.sqrt(v, out=b)
        b *= root
        b += eps
        np.divide(m, b, out=b)
        b *= step
        p *= decay
        p -= b


def _factors(t, lr, weight_decay, betas, eps, scale):
    """The numbers of update t, counted from 1."""
    lr = number("lr", lr)
    beta1 = number("betas[0]", betas[0], minimum=0, less_than=1)
    beta2 = number("betas[1]", betas[1], minimum=0, less_than=1)
    return AdamWFactors(
        decay=1 - lr * number("weight_decay", weight_decay, minimum=0),
        beta1=beta1,
        beta2=beta2,
        step=lr / (1 - beta1**t),
        root=1 / math.sqrt(1 - beta2**t),
        eps=number("eps", eps, minimum=0),
        scale=number("scale", scale, minimum=0),
    )


def _copy(p):
    return np.array(p, order="C")


def _same_leaves(name, tree, of_params):
    """The leaves of a tree, after a comparison with those of the parameters."""
    arrays = leaves(tree)
    if set(arrays) != set(of_params):
        differing = ", ".join(sorted(set(arrays) ^ set(of_params))[:5])
        raise InputError(f"{name}: wanted the leaves of params, got a difference at {differing}")
    for path, p in of_params.items():
        a = arrays[path]
        if a.shape != p.shape or a.dtype != p.dtype:
            wanted = f"{p.dtype} of shape {p.shape}"
            raise InputError(f"{name}[{path!r}]: wanted {wanted}, got {a.dtype} of {a.shape}")
        if name != "grads" and not (a.flags.c_contiguous and p.flags.c_contiguous):
            raise InputError(f"params[{path!r}]: wanted contiguous arrays with in_place=True")
    return arrays


# --- what a training loop does beside the update --------------------------------------------------


def global_norm(grads: Any) -> float:
    """√Σ g² over all leaves, experts included, summed in float64."""
    total = 0.0
    for g in leaves(grads).values():
        flat = g.reshape(-1)
        for low in range(0, flat.size, BLOCK):
            block = flat[low : low + BLOCK].astype(np.float64, copy=False)
            total += float(np.dot(block, block))
    return math.sqrt(total)


def clip_scale(norm: float, max_norm: float) -> float:
    """min(1, max_norm / norm): what gradients of this norm are multiplied by, so that none is
    longer than max_norm. 1 for a norm that is not finite: a caller has to stop there.
    """
    max_norm = number("max_norm", max_norm, greater_than=0)
    return max_norm / norm if math.isfinite(norm) and norm > max_norm else 1.0


def clip_by_global_norm(grads: Any, max_norm: float) -> tuple[Any, float]:
    """(gradients, their norm before): all are scaled by one factor (Pascanu et al. 2013), so that
    the norm over all leaves together is at most max_norm.

    After accumulation, not before (errata 30). `adamw(..., scale=clip_scale(norm, max_norm))` does
    the same without a second pass. Norms of single experts would be another algorithm.
    """
    norm = global_norm(grads)
    scale = clip_scale(norm, max_norm)
    return (grads if scale == 1 else map_leaves(lambda g: g * g.dtype.type(scale), grads)), norm


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, final: float = 0.0) -> float:
    """The learning rate of update `step`, counted from 0: a linear warm-up, then half a cosine.

    The first `warmup` updates rise to `peak`, the last of `total` has `final`; so has every later
    one (Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, without restarts).
    """
    t = integer("step", step, minimum=0) + 1
    warmup = integer("warmup", warmup, minimum=0)
    total = integer("total", total, minimum=warmup + 1)
    if t <= warmup:
        return peak * t / warmup
    share = min(1.0, (t - warmup) / (total - warmup))
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * share))


def accumulate(micro_batches: Iterable[tuple[Any, int]]) -> tuple[Any, int]:
    """Σ n_i g_i / Σ n_i for pairs of (gradients of a mean loss, number of its valid tokens).

    That is the gradient of the mean over all valid tokens, as if there were one batch (errata 26);
    a mean of the g_i would give a token of a short micro-batch too much weight. Returns the sum of
    the n_i too. Balance losses do not add up in this way: f and P of a micro-batch are multiplied.
    """
    total = None
    n_tokens = 0
    for grads, n in micro_batches:
        n_tokens += integer("micro_batches", n, minimum=0)
        weighted = map_leaves(lambda g, n=n: g * g.dtype.type(n), grads)
        if total is None:
            total = weighted
        else:
            map_leaves(_add_to, total, weighted)
    if total is None:
        raise InputError("micro_batches: wanted at least one, got none")
    return map_leaves(lambda g: g / g.dtype.type(max(n_tokens, 1)), total), n_tokens


def _add_to(total, g):
    total += g
    return total
