"""Adaptive mixtures of local experts: expert networks and a gating network, trained together.

R. A. Jacobs, M. I. Jordan, S. J. Nowlan and G. E. Hinton (1991), Adaptive mixtures of local
experts, Neural Computation 3:79-87. Three error functions of a mixture, of which the third makes
the experts divide the cases among themselves; all gradients by backpropagation. The nets that the
paper compares with are in jacobs1991_net.py.

    paper     here     shape      meaning
    x^c       x        (N, D)     input of case c
    d^c       d        (N, C)     target
    o_i^c     o        (N, E, C)  output of expert i
    s_i       s        (N, E)     logits of the gating network: the total input of its unit i
    p_i^c     p        (N, E)     softmax of s: the mixture weight, the probability of expert i
              y        (N, C)     blend Σ_i p_i o_i: the output of the mixture
    E^c       loss     (N,)       error of case c, eq. 1, 2 or 3
              resp     (N, E)     responsibility of expert i: its part of the likelihood in eq. 3

Parameters of a mixture: W (E, D, C) and b (E, C) of the experts, U (D, E) and c (E,) of the gating
network. The targets d are never differentiated.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.numerics import logsumexp, softmax, softmax_backward
from moe_np.base.optim import gradient_descent
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, ArrayNE, ArrayNEC, Params, Rng
from moe_np.mixtures.jacobs1991_net import (
    OUTPUT_UNITS,
    NetCache,
    init_net,  # noqa: F401 - a name of this module too
    net_backward,
    net_forward,
    net_predict,
    squash,
    squash_backward,
)

# --- Experts and gating network -------------------------------------------------------------------


class ExpertsCache(NamedTuple):
    x: ArrayND
    W: Array
    o: ArrayNEC
    kind: str


def experts_forward(
    params: Params, x: ArrayND, kind: str = "logistic"
) -> tuple[ArrayNEC, ExpertsCache]:
    """All experts on all cases, o_i = f(x W_i + b_i), f named by `kind`: (o (N, E, C), cache).

    A logistic output is ½ on a straight line: each expert has one linear decision surface.
    """
    o = squash(np.einsum("nd,edc->nec", x, params["W"]) + params["b"], kind)
    return o, ExpertsCache(x, params["W"], o, kind)


def experts_backward(do: ArrayNEC, cache: ExpertsCache) -> tuple[ArrayND, Params]:
    """(dx (N, D), {"W", "b"}) from do (N, E, C)."""
    dtotals = squash_backward(do, cache.o, cache.kind)
    dx = np.einsum("nec,edc->nd", dtotals, cache.W)
    return dx, {"W": np.einsum("nd,nec->edc", cache.x, dtotals), "b": dtotals.sum(axis=0)}


class GateCache(NamedTuple):
    x: ArrayND
    U: Array
    s: ArrayNE
    p: ArrayNE


def gate_forward(params: Params, x: ArrayND) -> tuple[ArrayNE, GateCache]:
    """p_i = exp(s_i) / Σ_j exp(s_j) with s = x U + c: (p (N, E), cache)."""
    s = x @ params["U"] + params["c"]
    p = softmax(s)
    return p, GateCache(x, params["U"], s, p)


def gate_backward(dp: ArrayNE, cache: GateCache) -> tuple[ArrayND, Params]:
    """(dx (N, D), {"U", "c"}) from dp (N, E)."""
    return gate_backward_from_logits(softmax_backward(dp, cache.p), cache)


def gate_backward_from_logits(ds: ArrayNE, cache: GateCache) -> tuple[ArrayND, Params]:
    """The same from ds (N, E), the gradient with respect to the logits."""
    return ds @ cache.U.T, {"U": cache.x.T @ ds, "c": ds.sum(axis=0)}


# --- Three errors of a case: pairs (o, p, d) -> (loss (N,), cache), (dloss, cache) -> (do, dp) ----


class CooperativeCache(NamedTuple):
    o: ArrayNEC
    p: ArrayNE
    y: ArrayNC
    residual: ArrayNC  # d − y


def cooperative_forward(o: ArrayNEC, p: ArrayNE, d: ArrayNC) -> tuple[ArrayN, CooperativeCache]:
    """Eq. 1: E = ‖d − Σ_i p_i o_i‖². The outputs are added, so experts correct each other."""
    y = np.einsum("ne,nec->nc", p, o)
    residual = d - y
    return (residual**2).sum(axis=1), CooperativeCache(o, p, y, residual)


def cooperative_backward(dloss: ArrayN, cache: CooperativeCache) -> tuple[ArrayNEC, ArrayNE]:
    """∂E/∂o_i = −2 p_i (d − y), with the residual of the blend; ∂E/∂p_i = −2 (d − y)·o_i."""
    dy = -2 * dloss[:, None] * cache.residual
    return cache.p[:, :, None] * dy[:, None, :], np.einsum("nc,nec->ne", dy, cache.o)


class CompetitiveCache(NamedTuple):
    p: ArrayNE
    residual: ArrayNEC  # d − o_i
    distance: ArrayNE  # ‖d − o_i‖²


def competitive_forward(o: ArrayNEC, p: ArrayNE, d: ArrayNC) -> tuple[ArrayN, CompetitiveCache]:
    """Eq. 2: E = Σ_i p_i ‖d − o_i‖², the mean error of one expert that is drawn with p."""
    residual = d[:, None, :] - o
    distance = (residual**2).sum(axis=2)
    return (p * distance).sum(axis=1), CompetitiveCache(p, residual, distance)


def competitive_backward(dloss: ArrayN, cache: CompetitiveCache) -> tuple[ArrayNEC, ArrayNE]:
    """∂E/∂o_i = −2 p_i (d − o_i), with the residual of expert i; ∂E/∂p_i = ‖d − o_i‖².

    p_i does not depend on the errors: while the gate is undecided, all experts learn the same.
    """
    do = -2 * dloss[:, None, None] * cache.p[:, :, None] * cache.residual
    return do, dloss[:, None] * cache.distance


class MixtureCache(NamedTuple):
    residual: ArrayNEC  # d − o_i
    log_gauss: ArrayNE  # −½ ‖d − o_i‖²
    loss: ArrayN
    resp: ArrayNE


def mixture_forward(o: ArrayNEC, p: ArrayNE, d: ArrayNC) -> tuple[ArrayN, MixtureCache]:
    """Eq. 3: E = −log Σ_i p_i exp(−½ ‖d − o_i‖²).

    Up to a constant this is minus the log likelihood of a mixture of Gaussians with means o_i.
    """
    residual = d[:, None, :] - o
    log_gauss = -0.5 * (residual**2).sum(axis=2)
    with np.errstate(divide="ignore"):  # p = 0: log joint −inf, responsibility 0
        log_joint = np.log(p) + log_gauss
    loss = -logsumexp(log_joint)
    return loss, MixtureCache(residual, log_gauss, loss, np.exp(log_joint + loss[:, None]))


def mixture_backward(dloss: ArrayN, cache: MixtureCache) -> tuple[ArrayNEC, ArrayNE]:
    """∂E/∂o_i = −resp_i (d − o_i); ∂E/∂p_i = −exp(−½ ‖d − o_i‖²) / Σ_j p_j exp(−½ ‖d − o_j‖²).

    resp_i is what eq. 2 lacks: the better of two experts gets more of the case than p gives it.
    """
    do = -dloss[:, None, None] * cache.resp[:, :, None] * cache.residual
    with np.errstate(over="ignore"):  # −resp / p is infinite for an expert that fits and has p = 0
        return do, -dloss[:, None] * np.exp(cache.log_gauss + cache.loss[:, None])


ERRORS = {
    "cooperative": (cooperative_forward, cooperative_backward),
    "competitive": (competitive_forward, competitive_backward),
    "mixture": (mixture_forward, mixture_backward),
}

# --- The whole mixture ----------------------------------------------------------------------------


class SystemCache(NamedTuple):
    experts: ExpertsCache
    gate: GateCache
    scores: CooperativeCache | CompetitiveCache | MixtureCache
    error: str
    o: ArrayNEC
    p: ArrayNE
    y: ArrayNC  # the blend Σ_i p_i o_i


def system_forward(
    params: Params, x: ArrayND, d: ArrayNC, error: str = "mixture", kind: str = "logistic"
) -> tuple[ArrayN, SystemCache]:
    """Experts, gate, and the error (a key of ERRORS) that joins them: (loss (N,), cache)."""
    o, experts = experts_forward(params, x, kind)
    p, gate = gate_forward(params, x)
    loss, scores = ERRORS[error][0](o, p, d)
    return loss, SystemCache(experts, gate, scores, error, o, p, np.einsum("ne,nec->nc", p, o))


def system_backward(dloss: ArrayN, cache: SystemCache) -> tuple[ArrayND, Params]:
    """(dx, grads). With eq. 3 the gradient of the gate's logits is ∂E/∂s_i = p_i − resp_i.

    That is eq. 3's backward pass and the softmax's, simplified; it stays finite where p_i is 0.
    """
    do, dp = ERRORS[cache.error][1](dloss, cache.scores)
    dx_experts, grads = experts_backward(do, cache.experts)
    if isinstance(cache.scores, MixtureCache):
        ds = dloss[:, None] * (cache.p - cache.scores.resp)
        dx_gate, gate_grads = gate_backward_from_logits(ds, cache.gate)
    else:
        dx_gate, gate_grads = gate_backward(dp, cache.gate)
    return dx_experts + dx_gate, {**grads, **gate_grads}


def predict(params: Params, x: ArrayND, kind: str = "logistic") -> ArrayNC:
    """The output y of a mixture (the blend Σ_i p_i o_i) or of a net."""
    if "U" not in params:
        return net_predict(params, x, kind)
    o, _ = experts_forward(params, x, kind)
    p, _ = gate_forward(params, x)
    return np.einsum("ne,nec->nc", p, o)


def init_mixture(rng: Rng, E: int, D: int = 2, C: int = 1, *, init_range: float = 0.05) -> Params:
    """Initialisation: experts uniform in ±init_range, the gate at 0, so that every p_i is 1/E."""
    for name, size in (("E", E), ("D", D), ("C", C)):
        checks.size(name, size)
    init_range = checks.number("init_range", init_range, minimum=0)
    drawn = checks.generator("rng", rng).uniform(-init_range, init_range, (E, C, D + 1))
    W = np.ascontiguousarray(drawn[:, :, :D].transpose(0, 2, 1))
    return {"W": W, "b": drawn[:, :, D].copy(), "U": np.zeros((D, E)), "c": np.zeros(E)}


def decision_foot(W: Array, b: Array) -> Array:
    """The point of the line x·W + b = 0 nearest to the origin, −b W / ‖W‖²: the dots in Fig. 3.

    W (..., D), b (...,) with any leading axes. Not defined for W = 0.
    """
    return -(b / (W * W).sum(axis=-1))[..., None] * W


def active_experts(p: ArrayNE, share: float = 0.05) -> Array:
    """Bool (E,): the experts that have the largest p in at least `share` of the cases."""
    return np.bincount(p.argmax(axis=1), minlength=p.shape[1]) >= share * len(p)


# --- Training -------------------------------------------------------------------------------------


class Epoch(NamedTuple):
    """The state of training after `number` updates, one per epoch over all cases."""

    number: int
    loss: float  # Σ over the cases of the error that is minimised
    squared_error: float  # mean over the cases of ‖d − y‖², for the stop rule
    params: Params
    cache: SystemCache | NetCache


def train(
    params: Params,
    x: ArrayND,
    d: ArrayNC,
    *,
    lr: float,
    error: str = "mixture",
    kind: str = "logistic",
) -> Iterator[Epoch]:
    """Gradient descent on the summed error with learning rate `lr`, one update per epoch.

    p ← p − lr Σ_c ∂E^c/∂p, without momentum (section 2 of the paper). `error` is for mixtures; a
    net has E = ½ ‖d − y‖². Yields an `Epoch` before each update, without end. Raises InputError for
    bad arguments.
    """
    params, x, d = _check(params, x, d, error, kind)
    lr = checks.number("lr", lr, minimum=0)
    for number in itertools.count():
        if "U" in params:
            loss, cache = system_forward(params, x, d, error, kind)
        else:
            loss, cache = net_forward(params, x, d, kind)
        squared_error = float(((d - cache.y) ** 2).sum(axis=1).mean())
        yield Epoch(number, float(loss.sum()), squared_error, params, cache)
        if isinstance(cache, SystemCache):
            _, grads = system_backward(np.ones_like(loss), cache)
        else:
            _, grads = net_backward(np.ones_like(loss), cache)
        params = gradient_descent(params, grads, lr=lr)


class Run(NamedTuple):
    """A whole training run: `epochs` updates, and whether the stop rule ended it."""

    epochs: int
    reached: bool
    squared_error: float
    params: Params
    history: Params  # after 0, 1, ..., epochs updates: arrays (epochs + 1, ...); {} without `keep`


def train_to_stop(
    params: Params,
    x: ArrayND,
    d: ArrayNC,
    *,
    lr: float,
    stop: float = 0.08,
    max_epochs: int = 10_000,
    error: str = "mixture",
    kind: str = "logistic",
    keep: bool = False,
) -> Run:
    """The epochs of `train`, until the mean squared error of y is at most `stop`.

    keep    store the parameters of every epoch in Run.history

    Compiled with Numba for eq. 3 and for nets, in float64. The compiled loop adds in another order:
    single epochs agree to rounding, but training is chaotic, so a run may end some epochs earlier
    or later. A run whose error becomes NaN ends there, and has not reached the stop rule.
    """
    params, x, d = _check(params, x, d, error, kind)
    lr = checks.number("lr", lr, minimum=0)
    stop = checks.number("stop", stop)
    keep = checks.boolean("keep", keep)
    checks.integer("max_epochs", max_epochs, minimum=0)
    in_float64 = all(a.dtype == np.float64 for a in (x, d, *params.values()))
    has_kernel = error == "mixture" and kind == ("logistic" if d.shape[1] == 1 else "softmax")
    if has_kernel and in_float64 and kernels.compiled(x.dtype):
        return Run(*kernels.jacobs1991.train_to_stop(params, x, d, lr, stop, max_epochs, keep))
    kept = []
    for epoch in train(params, x, d, lr=lr, error=error, kind=kind):
        if keep:
            kept.append(epoch.params)
        if epoch.number == max_epochs or not epoch.squared_error > stop:
            history = {k: np.stack([p[k] for p in kept]) for k in params} if keep else {}
            reached = epoch.squared_error <= stop
            return Run(epoch.number, reached, epoch.squared_error, epoch.params, history)
    raise AssertionError("the epochs of `train` do not end")


def _check(params, x, d, error, kind):
    """(params, x, d) as arrays, after checking names, shapes and that numbers are finite."""
    checks.choice("error", error, tuple(ERRORS))
    checks.choice("kind", kind, OUTPUT_UNITS)
    x = checks.array("x", x, ("N", "D"))
    N, D = x.shape
    if N == 0:
        raise checks.InputError(f"x: wanted at least one case, got shape (0, {D})")
    d = checks.array("d", d, (N, "C"))
    C = d.shape[1]
    is_mixture = "U" in checks.mapping("params", params)
    names = ("W", "b", "U", "c") if is_mixture else ("W", "b", "V", "c")
    if set(params) != set(names):
        got = ", ".join(map(str, params)) or "none"
        raise checks.InputError(f"params: wanted the keys {', '.join(names)}; got {got}")
    n = len(checks.array("params['b']", params["b"], ("E", C) if is_mixture else ("H",)))
    if n == 0:
        raise checks.InputError("params: wanted at least one expert or hidden unit, got none")
    of_mixture = {"W": (n, D, C), "b": (n, C), "U": (D, n), "c": (n,)}
    of_net = {"W": (D, n), "b": (n,), "V": (n, C), "c": (C,)}
    shapes = of_mixture if is_mixture else of_net
    return {k: checks.array(f"params[{k!r}]", params[k], shapes[k]) for k in shapes}, x, d
