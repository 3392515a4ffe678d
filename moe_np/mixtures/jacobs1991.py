"""Adaptive mixtures of local experts: several small nets, and a gate that learns which of them to
believe where.

R. A. Jacobs, M. I. Jordan, S. J. Nowlan and G. E. Hinton (1991), Adaptive mixtures of local
experts, Neural Computation 3:79-87. Everything in the paper: three ways to score a mixture, of
which the third makes the experts divide the cases among themselves, and the one-hidden-layer nets
it is compared with.

    paper     here         shape      meaning
    x^c       x            (N, D)     input of case c
    d^c       d            (N, C)     wanted output
    o_i^c     o            (N, E, C)  output of expert i
    s_i       s            (N, E)     total input of the gate's unit i
    p_i^c     p            (N, E)     gate's output, a softmax of s: the chance that expert i is the one to answer
              y            (N, C)     blend Σ_i p_i o_i: the answer of the whole
    E^c       loss         (N,)       error of case c, eq. 1, 2 or 3
              resp         (N, E)     responsibility of expert i for case c: its share of the likelihood in eq. 3

Parameters of a mixture: W (E, D, C) and b (E, C) of the experts, U (D, E) and c (E,) of the gate.
Parameters of a net: W (D, H), b (H,) into the hidden layer, V (H, C), c (C,) out of it.
"""

import itertools
from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.numerics import logsumexp, sigmoid, sigmoid_backward, softmax, softmax_backward
from moe_np.base.optim import gradient_descent

# --- Experts and gate -----------------------------------------------------------------------------

EXPERTS = ("logistic", "linear", "softmax")


def squash(totals, kind):
    """The output units of `kind`: logistic units, linear ones, or one softmax over the last axis."""
    return {"logistic": sigmoid, "linear": np.copy, "softmax": softmax}[kind](totals)


def squash_backward(do, o, kind):
    """Gradient at the totals, from the units' own outputs."""
    if kind == "linear":
        return do
    return sigmoid_backward(do, o) if kind == "logistic" else softmax_backward(do, o)


class ExpertsCache(NamedTuple):
    x: np.ndarray
    W: np.ndarray
    o: np.ndarray
    kind: str


def experts_forward(params, x, kind="logistic"):
    """All experts on all cases: o_i = f(x W_i + b_i), f logistic, linear or softmax. Returns (o (N,
    E, C), cache).

    One logistic output is ½ on a straight line only: each expert has a single linear decision
    surface.
    """
    o = squash(np.einsum("nd,edc->nec", x, params["W"]) + params["b"], kind)
    return o, ExpertsCache(x, params["W"], o, kind)


def experts_backward(do, cache):
    """(dx (N, D), {"W", "b"}) from do (N, E, C)."""
    dtotals = squash_backward(do, cache.o, cache.kind)
    dx = np.einsum("nec,edc->nd", dtotals, cache.W)
    return dx, {"W": np.einsum("nd,nec->edc", cache.x, dtotals), "b": dtotals.sum(axis=0)}


class GateCache(NamedTuple):
    x: np.ndarray
    U: np.ndarray
    s: np.ndarray
    p: np.ndarray


def gate_forward(params, x):
    """p_i = exp(s_i) / Σ_j exp(s_j) with s = x U + c. Returns (p (N, E), cache)."""
    s = x @ params["U"] + params["c"]
    p = softmax(s)
    return p, GateCache(x, params["U"], s, p)


def gate_backward(dp, cache):
    """(dx (N, D), {"U", "c"}) from dp (N, E)."""
    return gate_backward_from_totals(softmax_backward(dp, cache.p), cache)


def gate_backward_from_totals(ds, cache):
    """The same from ds (N, E), the gradient at the totals."""
    return ds @ cache.U.T, {"U": cache.x.T @ ds, "c": ds.sum(axis=0)}


# --- Three errors of one case: every pair is (o, p, d) -> (loss (N,), cache), dloss -> (do, dp) ---


class CooperativeCache(NamedTuple):
    o: np.ndarray
    p: np.ndarray
    y: np.ndarray
    residual: np.ndarray


def cooperative_forward(o, p, d):
    """Eq. 1: E = ‖d − Σ_i p_i o_i‖². The experts add up to the answer, so each must make good what
    the others do.
    """
    y = np.einsum("ne,nec->nc", p, o)
    residual = d - y
    return (residual**2).sum(axis=1), CooperativeCache(o, p, y, residual)


def cooperative_backward(dloss, cache):
    """∂E/∂o_i = −2 p_i (d − y), the residual of the whole; ∂E/∂p_i = −2 (d − y)·o_i. Returns (do,
    dp).
    """
    dy = -2 * dloss[:, None] * cache.residual
    return cache.p[:, :, None] * dy[:, None, :], np.einsum("nc,nec->ne", dy, cache.o)


class CompetitiveCache(NamedTuple):
    p: np.ndarray
    residual: np.ndarray
    distance: np.ndarray


def competitive_forward(o, p, d):
    """Eq. 2: E = Σ_i p_i ‖d − o_i‖². The mean error if one expert is drawn at random: each must
    answer alone.
    """
    residual = d[:, None, :] - o
    distance = (residual**2).sum(axis=2)
    return (p * distance).sum(axis=1), CompetitiveCache(p, residual, distance)


def competitive_backward(dloss, cache):
    """∂E/∂o_i = −2 p_i (d − o_i), an expert's own residual; ∂E/∂p_i = ‖d − o_i‖². Returns (do, dp).

    The weight p_i knows nothing of who was right: while the gate is undecided all experts learn the
    same.
    """
    do = -2 * dloss[:, None, None] * cache.p[:, :, None] * cache.residual
    return do, dloss[:, None] * cache.distance


class MixtureCache(NamedTuple):
    residual: np.ndarray
    log_gauss: np.ndarray
    loss: np.ndarray
    resp: np.ndarray


def mixture_forward(o, p, d):
    """Eq. 3: E = −log Σ_i p_i exp(−½ ‖d − o_i‖²), minus the log likelihood of a mixture of
    Gaussians about the o_i.
    """
    residual = d[:, None, :] - o
    log_gauss = -0.5 * (residual**2).sum(axis=2)
    with np.errstate(
        divide="ignore"
    ):  # an expert with p = 0 has log share −inf and responsibility 0
        log_share = np.log(p) + log_gauss
    loss = -logsumexp(log_share)
    return loss, MixtureCache(residual, log_gauss, loss, np.exp(log_share + loss[:, None]))


def mixture_backward(dloss, cache):
    """∂E/∂o_i = −resp_i (d − o_i); ∂E/∂p_i = −exp(−½ ‖d − o_i‖²) / Σ_j p_j exp(−½ ‖d − o_j‖²).
    Returns (do, dp).

    The weight resp_i is what eq. 2 lacks: the better of two experts gets more of the case than p
    gave it.
    """
    do = -dloss[:, None, None] * cache.resp[:, :, None] * cache.residual
    with np.errstate(over="ignore"):  # −resp / p: infinite for the expert that fits and has p = 0
        return do, -dloss[:, None] * np.exp(cache.log_gauss + cache.loss[:, None])


ERRORS = {
    "cooperative": (cooperative_forward, cooperative_backward),
    "competitive": (competitive_forward, competitive_backward),
    "mixture": (mixture_forward, mixture_backward),
}

# --- The whole mixture, and a net with one hidden layer: (params, x, d) -> (loss (N,), cache) -----


class SystemCache(NamedTuple):
    experts: ExpertsCache
    gate: GateCache
    scores: NamedTuple
    error: str
    o: np.ndarray
    p: np.ndarray
    y: np.ndarray


def system_forward(params, x, d, error="mixture", kind="logistic"):
    """Experts, gate and the error that joins them. Returns (loss (N,), cache); cache.y is the
    blend.
    """
    o, experts = experts_forward(params, x, kind)
    p, gate = gate_forward(params, x)
    loss, scores = ERRORS[error][0](o, p, d)
    return loss, SystemCache(experts, gate, scores, error, o, p, np.einsum("ne,nec->nc", p, o))


def system_backward(dloss, cache):
    """(dx, grads). Through eq. 3 and the softmax together the gate's gradient is plain: ∂E/∂s_i =
    p_i − resp_i.

    That is the chain of the two backward passes collapsed by algebra, and it stays finite where p_i
    is 0.
    """
    do, dp = ERRORS[cache.error][1](dloss, cache.scores)
    dx_experts, grads = experts_backward(do, cache.experts)
    if cache.error == "mixture":
        ds = dloss[:, None] * (cache.p - cache.scores.resp)
        dx_gate, gate_grads = gate_backward_from_totals(ds, cache.gate)
    else:
        dx_gate, gate_grads = gate_backward(dp, cache.gate)
    return dx_experts + dx_gate, {**grads, **gate_grads}


class NetCache(NamedTuple):
    x: np.ndarray
    W: np.ndarray
    V: np.ndarray
    hidden: np.ndarray
    y: np.ndarray
    residual: np.ndarray
    kind: str


def net_forward(params, x, d, kind="logistic"):
    """The rival: a layer of logistic hidden units, outputs of `kind`, E = ½ ‖d − y‖². Returns (loss
    (N,), cache).
    """
    hidden = sigmoid(x @ params["W"] + params["b"])
    y = squash(hidden @ params["V"] + params["c"], kind)
    residual = d - y
    return 0.5 * (residual**2).sum(axis=1), NetCache(
        x, params["W"], params["V"], hidden, y, residual, kind
    )


def net_backward(dloss, cache):
    """(dx, grads): back-propagation, output layer first."""
    dout = squash_backward(-dloss[:, None] * cache.residual, cache.y, cache.kind)
    din = sigmoid_backward(dout @ cache.V.T, cache.hidden)
    grads = {
        "W": cache.x.T @ din,
        "b": din.sum(axis=0),
        "V": cache.hidden.T @ dout,
        "c": dout.sum(axis=0),
    }
    return din @ cache.W.T, grads


# --- Training -------------------------------------------------------------------------------------


def init_mixture(rng, E, D=2, C=1, *, spread=0.05):
    """Experts with weights and biases uniform in ±spread; the gate at 0, so that every expert
    starts with p = 1/E.
    """
    start = rng.uniform(-spread, spread, (E, C, D + 1))
    W = np.ascontiguousarray(start[:, :, :D].transpose(0, 2, 1))
    return {"W": W, "b": start[:, :, D].copy(), "U": np.zeros((D, E)), "c": np.zeros(E)}


def init_net(rng, H, D=2, C=1, *, spread=0.05):
    """All weights and biases uniform in ±spread."""
    first, second = (
        rng.uniform(-spread, spread, (H, D + 1)),
        rng.uniform(-spread, spread, (C, H + 1)),
    )
    return {
        "W": first[:, :D].T.copy(),
        "b": first[:, D].copy(),
        "V": second[:, :H].T.copy(),
        "c": second[:, H].copy(),
    }


def predict(params, x, kind="logistic"):
    """The answer y (N, C) of a mixture (the blend) or of a net."""
    if "U" in params:
        o, p = experts_forward(params, x, kind)[0], gate_forward(params, x)[0]
        return np.einsum("ne,nec->nc", p, o)
    return squash(sigmoid(x @ params["W"] + params["b"]) @ params["V"] + params["c"], kind)


class Step(NamedTuple):
    """What training looks like after `number` updates, before the next one."""

    number: int
    loss: float  # Σ over cases of the error that is descended
    squared_error: float  # mean over cases of ‖d − y‖², which the stop rule reads
    params: dict
    cache: NamedTuple


def train(params, x, d, *, lr, error="mixture", kind="logistic"):
    """Descend the summed error, one update an epoch over all cases. Yields a Step for epoch 0, 1,
    2, ... without end.

    p ← p − lr Σ_c ∂E^c/∂p, no momentum (section 2 of the paper). `error` is for mixtures; a net has
    its own.
    """
    params, x, d = _checked(params, x, d, error, kind)
    for number in itertools.count():
        if "U" in params:
            loss, cache = system_forward(params, x, d, error, kind)
        else:
            loss, cache = net_forward(params, x, d, kind)
        squared_error = float(((d - cache.y) ** 2).sum(axis=1).mean())
        yield Step(number, float(loss.sum()), squared_error, params, cache)
        backward = system_backward if "U" in params else net_backward
        params = gradient_descent(params, backward(np.ones_like(loss), cache)[1], lr=lr)


class Run(NamedTuple):
    """A whole training run. `epochs` updates were made; `reached` says whether the stop rule ended
    it.
    """

    epochs: int
    reached: bool
    squared_error: float
    params: dict
    history: dict  # parameters after 0, 1, ..., epochs updates: arrays (epochs + 1, ...); empty unless asked for


def train_to_stop(
    params, x, d, *, lr, stop=0.08, max_epochs=10_000, error="mixture", kind="logistic", keep=False
):
    """Train until the mean squared error of y is at most `stop`: the steps of `train`, compiled
    where they can be.

    keep    store the parameters of every epoch in Run.history
    Returns a Run. The compiled loop adds up in another order: single steps agree to rounding, but a run is chaotic and
    may end some epochs earlier or later. A run whose error is no longer a number ends there, not reached.
    """
    params, x, d = _checked(params, x, d, error, kind)
    checks.integer("max_epochs", max_epochs, minimum=0)
    compiled = (
        kernels.backend() == "numba"
        and error == "mixture"
        and kind != "linear"
        and x.dtype == np.float64
    )
    if compiled and (kind == "logistic") == (d.shape[1] == 1):
        return Run(*kernels.jacobs1991.train_to_stop(params, x, d, lr, stop, max_epochs, keep))
    kept = []
    for step in train(params, x, d, lr=lr, error=error, kind=kind):
        if keep:
            kept.append(step.params)
        if step.number == max_epochs or not step.squared_error > stop:
            history = {k: np.stack([p[k] for p in kept]) for k in params} if keep else {}
            return Run(
                step.number, step.squared_error <= stop, step.squared_error, step.params, history
            )


def _checked(params, x, d, error, kind):
    """The public door: shapes that fit together, finite numbers, known names."""
    checks.choice("error", error, tuple(ERRORS))
    checks.choice("kind", kind, EXPERTS)
    x = checks.array("x", x, ("N", "D"))
    N, D = x.shape
    if N == 0:
        raise checks.InputError(f"x: wanted at least one case, got shape (0, {D})")
    d = checks.array("d", d, (N, "C"))
    C = d.shape[1]
    names = ("W", "b", "U", "c") if "U" in params else ("W", "b", "V", "c")
    if set(params) != set(names):
        got = ", ".join(map(str, params)) or "none"
        raise checks.InputError(f"params: wanted the keys {', '.join(names)}; got {got}")
    n = checks.array("params['b']", params["b"], ("E", C) if "U" in params else ("H",)).shape[0]
    if n == 0:
        raise checks.InputError("params: wanted at least one expert or hidden unit, got none")
    if "U" in params:
        shapes = {"W": (n, D, C), "b": (n, C), "U": (D, n), "c": (n,)}
    else:
        shapes = {"W": (D, n), "b": (n,), "V": (n, C), "c": (C,)}
    return {k: checks.array(f"params[{k!r}]", params[k], shapes[k]) for k in shapes}, x, d


# --- Reading a trained mixture --------------------------------------------------------------------


def decision_foot(W, b):
    """The point of the line x·W + b = 0 that is nearest to the origin: −b W / ‖W‖², the dots of the
    paper's Fig. 3.

    W (..., D), b (...,): any leading axes. Not defined for W = 0.
    """
    return -(b / (W * W).sum(axis=-1))[..., None] * W


def active_experts(p, share=0.05):
    """Which experts have the largest p for at least `share` of the cases. p (N, E) -> bool (E,)."""
    return np.bincount(p.argmax(axis=1), minlength=p.shape[1]) >= share * len(p)
