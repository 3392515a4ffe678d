"""Mixtures of experts by EM: ask who is responsible for each case, then fit each expert and the
gate to its share.

M. I. Jordan and R. A. Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural
Computation 6:181-214, section 3, for a tree with one gate (a tree of any depth is in hme.py):

    P(y | x) = Σ_i g_i(x) P(y | x, expert i)     g = softmax(x U + c)

    paper       here           shape       meaning
    x^(t)       x              (N, D)      inputs; `gate_x` (N, Dg) where the gate sees something else
    y^(t)       y              (N, C)      wanted outputs; or labels (N,)
    ξ_i         gate_logits    (N, E)      x U + c, the last one fixed at 0, since only differences count
    log g_i     log_gate       (N, E)      its log softmax
    log P_i     log_density    (N, E)      log P(y | x, expert i)
    h_i         resp           (N, E)      g_i P_i / Σ_j g_j P_j: the posterior probability that expert i made the case
    U_i, v_i    params                     U (Dg, E), c (E,) of the gate; W, b and var of the experts (em_families.py)

E step: h from the parameters. M step: the experts' regressions with weights h, and for the gate a
multinomial logistic regression on the targets h (irls.py). Neither can lower the likelihood, nor
with a ridge the penalised likelihood; so the gate need not be fitted to the end in each M step, and
one step of Newton's, halved where it must be, will do.
"""

import warnings
from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import log_softmax, logsumexp
from moe_np.mixtures import irls
from moe_np.mixtures.em_families import Categorical, Gaussian
from moe_np.mixtures.em_fit import Fit, gate_logits

__all__ = ["Categorical", "ConvergenceWarning", "Fit", "Gaussian", "fit", "gradient"]


class ConvergenceWarning(UserWarning):
    """EM was stopped by max_iter."""


# --- The algorithm --------------------------------------------------------------------------------


@irls.one_thread
def fit(
    x,
    y,
    n_experts,
    *,
    family,
    rng,
    gate_x=None,
    restarts=20,
    short=50,
    tol=1e-6,
    max_iter=1000,
    ridge=0.0,
    irls_steps=1,
    start=None,
):
    """Climb from `restarts` random starts, the best third of them to the end, and keep the best: ->
    Fit.

    family      Gaussian(...) or Categorical(...): what the experts are
    gate_x      (N, Dg) what the gate sees instead of x; Dg = 0 is a mixture of regressions with constant shares
    short       M steps after which only the best third climbs on (em-EM; Biernacki, Celeux and Govaert 2003)
    tol         a climb ends when what is still to come, extrapolated, is less than tol nats a case
    ridge       penalty ½ ridge ‖slopes‖² on gate and experts (the families and irls.py say how it is scaled)
    irls_steps  steps of Newton's in each M step, for the gate and for categorical experts
    start       parameters to climb from; one climb, and rng is not used

    An expert whose variance is at its floor, on D + 1 + C cases or fewer, has collapsed: it meets
    them exactly, and without the floor the likelihood would have no maximum. Such a climb is kept
    only if all are such. Warns if the one that is kept did not converge. EM finds local maxima;
    more restarts find better ones.
    """
    problem = _problem(x, y, n_experts, family, gate_x, ridge, irls_steps)
    for name, value in (("max_iter", max_iter), ("restarts", restarts), ("short", short)):
        checks.integer(name, value)
    checks.number("tol", tol, minimum=0)
    if start is not None:
        runs = [_climb(problem, _check_start(problem, start), tol, max_iter)]
    else:
        starts = [start_params(problem, rng) for _ in range(restarts)]
        first = max_iter if restarts == 1 else min(short, max_iter)
        runs = [_climb(problem, params, tol, first) for params in starts]
        runs.sort(key=lambda run: _rank(problem, run), reverse=True)
        runs = [_go_on(problem, run, tol, max_iter) for run in runs[: -(-restarts // 3)]]
    best = max(runs, key=lambda run: _rank(problem, run))
    if not best.converged:
        text = f"EM: not converged after {max_iter} steps; wanted a larger max_iter or tol"
        warnings.warn(text, ConvergenceWarning, stacklevel=3)
    return best


def _climb(problem, params, tol, max_iter, history=()):
    """EM from `params` until it hardly rises any more, or max_iter M steps are made, those of
    `history` among them.
    """
    history = list(history)
    while True:
        now = e_step(problem, params)
        history.append(now.value)
        converged = _settled(history, tol * len(problem.y))
        if converged or len(history) > max_iter:
            return Fit(
                params, now.log_likelihood, np.array(history), now.resp, converged, problem.family
            )
        params = m_step(problem, params, now.resp)


def _go_on(problem, run, tol, max_iter):
    """A climb that was cut short, to its end."""
    if run.converged or len(run.history) > max_iter:
        return run
    return _climb(problem, run.params, tol, max_iter, run.history[:-1])


class Expectation(NamedTuple):
    """What the E step finds."""

    log_gate: np.ndarray  # (N, E)
    log_density: np.ndarray  # (N, E)
    resp: np.ndarray  # (N, E)
    log_likelihood: float
    value: float  # log_likelihood − penalty


def e_step(problem, params):
    """resp_i = g_i P_i / Σ_j g_j P_j, in logarithms."""
    log_gate = log_softmax(gate_logits(params, problem.gate))
    log_density = problem.family.log_density(params, problem.inputs, problem.y)
    joint = log_gate + log_density
    total = logsumexp(joint, keepdims=True)
    log_likelihood = float(total.sum())
    value = log_likelihood - penalty(problem, params)
    return Expectation(log_gate, log_density, np.exp(joint - total), log_likelihood, value)


def m_step(problem, params, resp):
    """New experts and a new gate; params=None begins with experts and gate at 0."""
    experts = problem.family.m_step(
        params, problem.inputs, problem.y, resp, problem.ridge, problem.irls_steps
    )
    return {**experts, **gate_m_step(problem, params, resp)}


def gate_m_step(problem, params, resp):
    """Raise Σ_n Σ_i resp_ni log g_i(x_n): a logistic regression on soft targets, from where the
    gate is.
    """
    start = None if params is None else np.vstack([params["U"], params["c"]])
    coef, _ = irls.multinomial_irls(
        problem.gate, resp, start=start, ridge=problem.ridge, max_steps=problem.irls_steps
    )
    return {"U": coef[:-1], "c": coef[-1]}


def penalty(problem, params):
    """What the ridge costs, gate and experts."""
    if not problem.ridge:
        return 0.0
    U = params["U"] - params["U"].mean(axis=1, keepdims=True)
    return 0.5 * problem.ridge * float((U**2).sum()) + problem.family.penalty(params, problem.ridge)


def _settled(history, little):
    """Is what is still to come less than `little`? Rises shrink in proportion near a maximum
    (Aitken): the rest of the geometric series is rise · a / (1 − a), a the ratio of the last two.
    While they grow, the end is not in sight.
    """
    if len(history) < 3:
        return False
    before, rise = history[-2] - history[-3], history[-1] - history[-2]
    if rise <= 4 * np.finfo(float).eps * abs(history[-1]):
        return True  # rounding
    return rise < before and rise * rise / (before - rise) < little


@irls.one_thread
def gradient(params, x, y, *, family, gate_x=None):
    """The log likelihood and its gradient: (number, grads), the experts' and the gate's, of Σ_n log
    P(y_n | x_n).

    Fisher's identity: the gradient of the log likelihood is that of the E step's expected log
    likelihood, with resp held. So each expert sees its own regression's gradient with weights resp,
    and the gate logits see resp − g. At the parameters that EM ends with (without ridge, off the
    floor) it is 0.
    """
    n_experts = (
        np.shape(params["c"])[0]
        if isinstance(params, dict) and np.ndim(params.get("c")) == 1
        else 1
    )
    problem = _problem(x, y, n_experts, family, gate_x, 0.0, 1)
    now = e_step(problem, _check_start(problem, params, "params"))
    dlogits = now.resp - np.exp(now.log_gate)
    dc = dlogits.sum(axis=0)
    dU = problem.gate.xt[:-1] @ dlogits + problem.gate.mean[:, None] * dc
    return now.log_likelihood, {
        **problem.family.gradient(params, problem.inputs, problem.y, now.resp),
        "U": dU,
        "c": dc,
    }


# --- Where it starts, and what it starts with -----------------------------------------------------


class Problem(NamedTuple):
    """Checked data and settings, as the steps above want them."""

    inputs: irls.Design
    gate: irls.Design  # the same, or that of gate_x
    y: np.ndarray
    n_experts: int
    family: NamedTuple
    ridge: float
    irls_steps: int


def _problem(x, y, n_experts, family, gate_x, ridge, irls_steps):
    """The public door."""
    if not isinstance(family, (Gaussian, Categorical)):
        raise checks.InputError(f"family: wanted Gaussian(...) or Categorical(...), got {family!r}")
    inputs = irls.design(x)
    N = inputs.xt.shape[1]
    if N == 0:
        raise checks.InputError("x: wanted at least one case, got none")
    family, y = family.resolve(y)
    gate = inputs if gate_x is None else irls.design(checks.array("gate_x", gate_x, (N, "D")))
    if len(y) != N:
        raise checks.InputError(f"y: wanted {N} cases, as x has, got {len(y)}")
    E, steps = checks.integer("n_experts", n_experts), checks.integer("irls_steps", irls_steps)
    return Problem(inputs, gate, y, E, family, checks.number("ridge", ridge, minimum=0), steps)


def start_params(problem, rng):
    """An M step from a random partition: each case to the nearest of E cases drawn at random, near
    in x, gate_x and y.

    Nine tenths of a case go there and the rest to all alike; all experts begin with the same
    variance. That keeps an expert that was given few cases from fitting them at once, and for ever.
    """
    resp = start_resp(problem, checks.generator("rng", rng))
    params = m_step(problem, None, resp)
    return problem.family.pooled(params, resp)


def start_resp(problem, rng):
    E, N = problem.n_experts, len(problem.y)
    y = problem.y if problem.y.ndim == 2 else np.eye(problem.family.n_classes)[problem.y]
    parts = [problem.inputs.xt[:-1].T, y] + (
        [] if problem.gate is problem.inputs else [problem.gate.xt[:-1].T]
    )
    z = np.hstack([standard(part) / np.sqrt(max(part.shape[1], 1)) for part in parts])
    centre = z[rng.choice(N, E, replace=N < E)]
    distance = ((z[:, None, :] - centre) ** 2).sum(axis=2)
    return 0.9 * (np.arange(E) == distance.argmin(axis=1)[:, None]) + 0.1 / E


def standard(x):
    """x (N, D) with mean 0 and deviation 1, constant columns 0."""
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(
        spread > 1e-12 * np.abs(x).max(axis=0, initial=0), spread, np.inf
    )


def _check_start(problem, start, called="start"):
    E, D, Dg = problem.n_experts, len(problem.inputs.mean), len(problem.gate.mean)
    C = problem.y.shape[1] if problem.y.ndim == 2 else problem.family.n_classes
    shapes = {"W": (E, D, C), "b": (E, C), "U": (Dg, E), "c": (E,)}
    if isinstance(problem.family, Gaussian):
        shapes["var"] = {"expert": (E,), "full": (E, C, C)}.get(problem.family.covariance, ())
    if not isinstance(start, dict) or set(start) != set(shapes):
        got = ", ".join(map(str, start)) if isinstance(start, dict) else repr(start)
        raise checks.InputError(f"{called}: wanted the keys {', '.join(shapes)}; got {got}")
    start = {
        name: checks.array(f"{called}[{name!r}]", start[name], shape)
        for name, shape in shapes.items()
    }
    if (
        "var" in start
        and not (np.linalg.eigvalsh(start["var"]) if start["var"].ndim == 3 else start["var"]).min()
        > 0
    ):
        raise checks.InputError(
            f"{called}['var']: wanted variances above 0, and covariance matrices that are positive definite"
        )
    return start


def _rank(problem, run):
    """What makes one climb better than another: that no expert has collapsed, then what it has
    climbed to.
    """
    if isinstance(problem.family, Categorical):
        return True, run.history[-1]
    var = run.params["var"]
    least = np.linalg.eigvalsh(var)[:, 0] if var.ndim == 3 else var
    few = run.resp.sum(axis=0) <= len(problem.inputs.xt) + problem.y.shape[1] + 0.01
    return not (few & (least <= 1.01 * problem.family.floor)).any(), run.history[-1]
