"""What every way of training a mixture has in common: the problem, its likelihood with the
gradient, and a step.

    paper          here      shape     meaning
    y              y         (N, ..)   what is wanted of case n
    g_i(x)         p         (N, E)    the gate's softmax
    P(y | x, i)    log_f     (N, E)    log density of y under expert i
    h_i            resp      (N, E)    posterior that expert i made case n: g_i P_i / Σ_j g_j P_j
    –              loss                −(1/N) Σ_n log Σ_i g_i P_i, the one number that all methods are compared on

(Jordan and Jacobs 1994, section 2.) A trainer is a file with one generator,

    train(problem, rng, *, start=None, **options) -> Step, Step, ...

It draws from `rng` alone (same seed, same bits), changes nothing that it is given, and goes on for
ever: the caller stops it, by `Step.passes` for instance. `start` takes the parameters to begin with
in place of `problem.init(rng)`.

**Passes** are the measure of work that does not depend on the machine. One pass takes every case
once through all experts and the gate, in one direction; half of it is the experts', half the
gate's. So a step down the gradient of everything is two passes, and looking at the loss of one set
of parameters is one. What is only reported is not counted.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.base import checks, optim
from moe_np.base.checks import InputError
from moe_np.base.numerics import log_softmax, logsumexp

PARTS = ("experts", "gate")


class Problem(NamedTuple):
    """Data, and a mixture that shall describe it. Parameters are {"experts": {name: array}, "gate":
    {name: array}}.

    Arrays of the experts have the expert on axis 0, those of the gate on the last axis.
    """

    x: np.ndarray  # (N, ...)
    y: np.ndarray  # (N, ...)
    features: np.ndarray  # (N, F) what a method that clusters the cases looks at
    init: Callable  # init(rng) -> params
    experts_forward: Callable  # (params["experts"], x) -> (o (N, E, ...), cache)
    experts_backward: Callable  # (do, cache) -> (dx or None, grads)
    gate_forward: Callable  # (params["gate"], x) -> (logits (N, E), cache)
    gate_backward: Callable  # (dlogits, cache) -> (dx or None, grads)
    density_forward: Callable  # (o, y) -> (log_f (N, E), cache)
    density_backward: Callable  # (dlog_f, cache) -> do
    quality: Callable  # (params, x, y) -> a number, larger is better
    fit_experts: Callable | None = (
        None  # (params["experts"], x, y, resp) -> (params["experts"], passes), for EM
    )
    fit_gate: Callable | None = (
        None  # (params["gate"], x, resp) -> (params["gate"], passes), for EM
    )


class Step(NamedTuple):
    """Where training is after `number` steps."""

    number: int
    loss: float  # of `params`
    changed: tuple  # what the step before this one changed: parts of params, or "clusters"; () at the start
    params: dict
    cache: NamedTuple  # of the forward pass at `params`, or what the method has instead
    passes: float  # over the data so far


# --- the likelihood -------------------------------------------------------------------------------


class ExpertsCache(NamedTuple):
    outputs: NamedTuple
    density: NamedTuple


class Cache(NamedTuple):
    experts: ExpertsCache
    gate: NamedTuple
    log_f: np.ndarray  # (N, E)
    logits: np.ndarray  # (N, E)
    p: np.ndarray  # (N, E)
    resp: np.ndarray  # (N, E)
    case_loss: np.ndarray  # (N,)


def experts_forward(problem, experts):
    """log_f (N, E) of every case under every expert. Returns (log_f, cache)."""
    o, outputs = problem.experts_forward(experts, problem.x)
    log_f, density = problem.density_forward(o, problem.y)
    return log_f, ExpertsCache(outputs, density)


def experts_backward(problem, dlog_f, cache):
    """Gradients of the experts from dlog_f (N, E)."""
    return problem.experts_backward(problem.density_backward(dlog_f, cache.density), cache.outputs)[
        1
    ]


def mix(log_f, logits, experts_cache=None, gate_cache=None):
    """loss = −(1/N) Σ_n log Σ_i p_i f_i from log_f and logits, both (N, E). Returns (loss, cache)."""
    log_p = log_softmax(logits)
    share = log_p + log_f
    case_loss = -logsumexp(share)
    resp = np.exp(share + case_loss[:, None])
    return float(case_loss.mean()), Cache(
        experts_cache, gate_cache, log_f, logits, np.exp(log_p), resp, case_loss
    )


def mix_backward(cache):
    """dlog_f = −resp / N and dlogits = (p − resp) / N, both (N, E)."""
    N = len(cache.resp)
    return -cache.resp / N, (cache.p - cache.resp) / N


def forward(problem, params):
    """The loss of the whole mixture: -> (loss, cache). One pass."""
    log_f, experts_cache = experts_forward(problem, params["experts"])
    logits, gate_cache = problem.gate_forward(params["gate"], problem.x)
    return mix(log_f, logits, experts_cache, gate_cache)


def backward(problem, cache, parts=PARTS):
    """Gradients {part: {name: array}} of the loss for the parts asked for. One pass, or half of one
    for one part.
    """
    dlog_f, dlogits = mix_backward(cache)
    grads = {}
    if "experts" in parts:
        grads["experts"] = experts_backward(problem, dlog_f, cache.experts)
    if "gate" in parts:
        grads["gate"] = problem.gate_backward(dlogits, cache.gate)[1]
    return grads


def loss_of(problem, params):
    """The loss alone."""
    return forward(problem, params)[0]


def cross_entropy_backward(p, target):
    """dlogits of −(1/N) Σ_n Σ_i target_i log p_i, the gate's part of EM's bound: (p Σ target −
    target) / N, (N, E).
    """
    return (p * target.sum(axis=1, keepdims=True) - target) / len(p)


# --- steps ----------------------------------------------------------------------------------------


def begin(problem, rng, start):
    """The parameters to begin with, after a look at the door: `start`, or what `problem.init`
    draws.
    """
    if not (len(problem.x) and len(problem.x) == len(problem.y) == len(problem.features)):
        sizes = f"{len(problem.x)}, {len(problem.y)} and {len(problem.features)}"
        raise InputError(
            f"problem: wanted x, y and features of as many cases, at least one; got {sizes}"
        )
    params = problem.init(checks.generator("rng", rng)) if start is None else start
    if set(params) != set(PARTS):
        raise InputError(
            f"start: wanted the keys {', '.join(PARTS)}; got {', '.join(map(str, params)) or 'none'}"
        )
    names = {
        f"start[{part!r}][{name!r}]": a for part, own in params.items() for name, a in own.items()
    }
    for name, array in names.items():
        checks.array(name, array, ("E",) * np.ndim(array))
    return params


def descend(params, grads, states, lr):
    """One step of Adam for each part that has gradients. Returns (params, states); other parts are
    the same objects.
    """
    params, states = dict(params), dict(states)
    for part, own in grads.items():
        params[part], states[part] = optim.adam(params[part], own, states.get(part), lr=lr)
    return params, states


# --- a mixture as one vector ----------------------------------------------------------------------


def flatten(params):
    """All numbers of params in one vector (n,), part by part and name by name in the order of the
    dicts.
    """
    return np.concatenate([a.ravel() for part in PARTS for a in params[part].values()])


def unflatten(vector, like):
    """The params that `flatten` made `vector` of, shaped as in `like`."""
    out, at = {}, 0
    for part in PARTS:
        out[part] = {}
        for name, a in like[part].items():
            out[part][name] = vector[at : at + a.size].reshape(a.shape)
            at += a.size
    return out


def owners(params):
    """Which expert each number of the vector belongs to: (n,) whole numbers."""
    E = len(next(iter(params["experts"].values())))
    out = []
    for a in params["experts"].values():
        out.append(np.repeat(np.arange(E), a.size // E))
    for a in params["gate"].values():
        out.append(np.tile(np.arange(E), a.size // E))
    return np.concatenate(out)


def stack(vectors, like):
    """Mixtures (M, n) as one with M·E experts, mixture by mixture: params whose experts and gate
    columns are theirs.
    """
    E, at = len(next(iter(like["experts"].values()))), 0
    M, out = len(vectors), {part: {} for part in PARTS}
    for part in PARTS:
        for name, a in like[part].items():
            own = vectors[:, at : at + a.size]
            at += a.size
            if part == "experts":
                out[part][name] = own.reshape(M * E, *a.shape[1:])
            else:
                columns = np.moveaxis(own.reshape(M, *a.shape), 0, -2)  # (..., M, E)
                out[part][name] = columns.reshape(*a.shape[:-1], M * E)
    return out


def losses_of(problem, vectors, like):
    """The losses (M,) of mixtures (M, n), one pass each. What is no number counts as infinite.

    The experts of a population are just more experts: all are computed in one go, and mixed each
    with its own.
    """
    many, E = stack(vectors, like), len(next(iter(like["experts"].values())))
    with np.errstate(over="ignore", invalid="ignore"):  # a mutation may go anywhere
        log_f, _ = experts_forward(problem, many["experts"])
        logits, _ = problem.gate_forward(many["gate"], problem.x)
        shape = (len(log_f), len(vectors), E)
        case_loss = -logsumexp(log_softmax(logits.reshape(shape)) + log_f.reshape(shape))
        losses = case_loss.mean(axis=0)
    return np.where(np.isnan(losses), np.inf, losses)
