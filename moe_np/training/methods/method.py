"""What a training method is: the problem, its likelihood with the gradient, and a training step.

    paper        here     shape     meaning
    y            y        (N, ..)   target of case n
    g_i(x)       p        (N, E)    mixture weights: the gating network's softmax
    P(y | x, i)  log_f    (N, E)    log density of y under expert i
    h_i          resp     (N, E)    responsibility g_i P_i / Σ_j g_j P_j of expert i for case n
                 loss     number    −(1/N) Σ_n log Σ_i g_i P_i, by which all methods are compared

(Jordan and Jacobs 1994, section 2.) A training method is a file with one generator,

    train(problem, rng, *, initial=None, **options) -> Step, Step, ...

It draws from `rng` only (same seed, same bits), changes none of its arguments, and does not end:
the caller stops it, for instance by `Step.passes`. `initial` are parameters to begin with in place
of `problem.init(rng)`.

**Passes** measure work independently of the machine. One pass computes all experts and the gate on
every case once, forward or backward; half of it is the experts', half the gate's. So one gradient
step of all parameters is two passes, and the loss of one set of parameters is one pass. What is
computed only for reporting is not counted.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks, optim
from moe_np.base.checks import InputError
from moe_np.base.numerics import log_softmax, logsumexp
from moe_np.base.types import Array, ArrayN, ArrayNE, Params, Rng

PARTS = ("experts", "gate")

MixtureParams = dict[str, Params]  # {"experts": {name: array}, "gate": {name: array}}


class Problem(NamedTuple):
    """Data, and a mixture of experts that is trained on them.

    The arrays of params["experts"] have the expert on axis 0, those of params["gate"] on the last
    axis. Backward functions return (dx or None, grads).
    """

    x: Array  # (N, ...)
    y: Array  # (N, ...)
    features: Array  # (N, F), for methods that cluster the cases
    init: Callable[[Rng], MixtureParams]
    experts_forward: Callable  # (params["experts"], x) -> (o (N, E, ...), cache)
    experts_backward: Callable  # (do, cache) -> (dx, grads)
    gate_forward: Callable  # (params["gate"], x) -> (logits (N, E), cache)
    gate_backward: Callable  # (dlogits, cache) -> (dx, grads)
    density_forward: Callable  # (o, y) -> (log_f (N, E), cache)
    density_backward: Callable  # (dlog_f, cache) -> do
    quality: Callable  # (params, x, y) -> number, larger is better
    fit_experts: Callable | None = None  # (params["experts"], x, y, resp) -> (new, passes), for EM
    fit_gate: Callable | None = None  # (params["gate"], x, resp) -> (new, passes), for EM


class Step(NamedTuple):
    """The state of training after `number` steps."""

    number: int
    loss: float  # of `params`
    updated: tuple[str, ...]  # what the last step changed: parts of params, or "clusters"
    params: MixtureParams
    cache: NamedTuple  # of the forward pass at `params`, or what the method has instead of it
    passes: float  # over the data so far


# --- The likelihood -------------------------------------------------------------------------------


class DensityCache(NamedTuple):
    outputs: Any  # of problem.experts_forward
    density: Any  # of problem.density_forward


def log_densities(problem: Problem, experts: Params) -> tuple[ArrayNE, DensityCache]:
    """log_f (N, E) of every case under every expert: (log_f, cache)."""
    o, outputs = problem.experts_forward(experts, problem.x)
    log_f, density = problem.density_forward(o, problem.y)
    return log_f, DensityCache(outputs, density)


def log_densities_backward(problem: Problem, dlog_f: ArrayNE, cache: DensityCache) -> Params:
    """Gradients of the experts from dlog_f (N, E)."""
    do = problem.density_backward(dlog_f, cache.density)
    return problem.experts_backward(do, cache.outputs)[1]


class Cache(NamedTuple):
    experts: Any  # the DensityCache, where there is one
    gate: Any  # of problem.gate_forward
    log_f: ArrayNE
    logits: ArrayNE
    p: ArrayNE
    resp: ArrayNE
    case_loss: ArrayN


def mixture_forward(
    log_f: ArrayNE, logits: ArrayNE, experts_cache: Any = None, gate_cache: Any = None
) -> tuple[float, Cache]:
    """loss = −(1/N) Σ_n log Σ_i p_i f_i, p = softmax(logits): (loss, cache)."""
    log_p = log_softmax(logits)
    log_joint = log_p + log_f
    case_loss = -logsumexp(log_joint)
    resp = np.exp(log_joint + case_loss[:, None])
    cache = Cache(experts_cache, gate_cache, log_f, logits, np.exp(log_p), resp, case_loss)
    return float(case_loss.mean()), cache


def mixture_backward(cache: Cache) -> tuple[ArrayNE, ArrayNE]:
    """dlog_f = −resp / N and dlogits = (p − resp) / N."""
    N = len(cache.resp)
    return -cache.resp / N, (cache.p - cache.resp) / N


def forward(problem: Problem, params: MixtureParams) -> tuple[float, Cache]:
    """The loss of the whole mixture: (loss, cache). One pass."""
    log_f, experts_cache = log_densities(problem, params["experts"])
    logits, gate_cache = problem.gate_forward(params["gate"], problem.x)
    return mixture_forward(log_f, logits, experts_cache, gate_cache)


def forward_part(
    problem: Problem, params: MixtureParams, cache: Cache, part: str
) -> tuple[float, Cache]:
    """The same where only `part` has changed since `cache` was computed. Half a pass."""
    if part == "experts":
        log_f, experts_cache = log_densities(problem, params["experts"])
        return mixture_forward(log_f, cache.logits, experts_cache, cache.gate)
    logits, gate_cache = problem.gate_forward(params["gate"], problem.x)
    return mixture_forward(cache.log_f, logits, cache.experts, gate_cache)


def backward(problem: Problem, cache: Cache, parts: tuple[str, ...] = PARTS) -> MixtureParams:
    """Gradients {part: {name: array}} of the loss. One pass, or half a pass for one part."""
    dlog_f, dlogits = mixture_backward(cache)
    grads = {}
    if "experts" in parts:
        grads["experts"] = log_densities_backward(problem, dlog_f, cache.experts)
    if "gate" in parts:
        grads["gate"] = problem.gate_backward(dlogits, cache.gate)[1]
    return grads


def loss_of(problem: Problem, params: MixtureParams) -> float:
    """The loss of the whole mixture, without the cache."""
    return forward(problem, params)[0]


def cross_entropy_backward(p: ArrayNE, target: ArrayNE) -> ArrayNE:
    """dlogits = (p Σ_i target_i − target) / N of the cross-entropy −(1/N) Σ_n Σ_i target_i log p_i.

    With the responsibilities as targets it is the gate's part of the bound that EM raises.
    """
    return (p * target.sum(axis=1, keepdims=True) - target) / len(p)


# --- Steps ----------------------------------------------------------------------------------------


def initial_params(
    problem: Problem, rng: Rng | None, initial: MixtureParams | None
) -> MixtureParams:
    """`initial`, or `problem.init(rng)` if it is None, with the parts in the order of PARTS.

    Raises InputError for a problem without cases, a wrong rng, and parameters that are not finite.
    """
    sizes = len(problem.x), len(problem.y), len(problem.features)
    if not sizes[0] or len(set(sizes)) > 1:
        raise InputError(
            "problem: wanted x, y and features of the same number of cases, at least one; "
            f"got {sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    params = problem.init(checks.generator("rng", rng)) if initial is None else initial
    if set(params) != set(PARTS):
        got = ", ".join(map(str, params)) or "none"
        raise InputError(f"initial: wanted the keys {', '.join(PARTS)}; got {got}")
    for part, arrays in params.items():
        for name, array in arrays.items():
            checks.array(f"initial[{part!r}][{name!r}]", array, ("E",) * np.ndim(array))
    return {part: params[part] for part in PARTS}


def adam_step(
    params: MixtureParams,
    grads: MixtureParams,
    states: Mapping[str, optim.AdamState],
    lr: float,
) -> tuple[MixtureParams, dict[str, optim.AdamState]]:
    """One step of Adam with learning rate `lr` for each part with gradients: (params, states).

    The other parts stay the same objects.
    """
    params = dict(params)
    states = dict(states)
    for part, part_grads in grads.items():
        state = states.get(part)
        params[part], states[part] = optim.adam(params[part], part_grads, state, lr=lr)
    return params, states
