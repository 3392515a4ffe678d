"""Expectation-maximisation (EM) for a mixture of experts: `em.fit`.

M. I. Jordan and R. A. Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural
Computation 6:181-214, section 3, for a tree with one gating network (hme_em.py has any depth):

    P(y | x) = Σ_i g_i(x) P(y | x, expert i)     g = softmax(x U + c)

    paper       here         shape    meaning
    x^(t)       x            (N, D)   inputs; `gate_x` (N, Dg) where the gate has other inputs
    y^(t)       y            (N, C)   targets of Gaussian experts, also for C = 1; of categorical
                                      experts class labels, whole numbers, of shape (N,)
    ξ_i         gate_logits  (N, E)   logits x U + c of the gating network
    g_i         log_gate     (N, E)   their softmax: the mixture weights (here its logarithm)
    P_i         log_density  (N, E)   P(y | x, expert i) (here its logarithm)
    h_i         resp         (N, E)   responsibility g_i P_i / Σ_j g_j P_j: the posterior
                                      probability that expert i generated the case
    U_i, v_i    params                U (Dg, E), c (E,) of the gating network, the last column 0;
                                      W, b and var of the experts (em_families.py)

E step: the responsibilities from the parameters. M step: each expert's regression with weights h_i,
and for the gate a multinomial logistic regression with targets h, by IRLS (irls.py). Neither lowers
the likelihood; with a ridge (weight decay), neither lowers the penalised likelihood. So the gate's
regression need not converge within an M step: one Newton step with step halving is enough.

Cases may have weights w_n (`weight`): EM then raises Σ_n w_n log P(y_n | x_n), the E step is as it
was, and the M step's regressions have the weights w_n h_ni. A case of weight 2 counts as two equal
cases.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.machine import one_blas_thread
from moe_np.base.numerics import log_softmax, logsumexp
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, ArrayNE, Params, Rng
from moe_np.mixtures.em_families import Categorical, Family, Gaussian
from moe_np.mixtures.em_fit import Fit, gate_logits
from moe_np.mixtures.em_problem import Problem, check_params, prepare
from moe_np.mixtures.irls import multinomial_irls

__all__ = ["Categorical", "ConvergenceWarning", "Fit", "Gaussian", "fit", "gradient"]


class ConvergenceWarning(UserWarning):
    """EM was stopped by max_iter."""


@one_blas_thread()
def fit(
    x: ArrayND,
    y: ArrayNC | ArrayN,
    n_experts: int,
    *,
    family: Family,
    rng: Rng | None,
    gate_x: Array | None = None,
    restarts: int = 20,
    short: int = 50,
    tol: float = 1e-6,
    max_iter: int = 1000,
    ridge: float = 0.0,
    irls_steps: int = 1,
    initial: Params | None = None,
    weight: ArrayN | None = None,
) -> Fit:
    """Fit a mixture of experts by EM, from several random initialisations; returns the best `Fit`.

    y           for Gaussian(...) numbers (N, C), (N, 1) for one output; for Categorical(...) class
                labels (N,), whole numbers from 0. The other shape is refused.
    family      Gaussian(...) or Categorical(...): the kind of experts
    gate_x      (N, Dg), inputs of the gate in place of x; with Dg = 0 the mixture weights are
                constant (a mixture of regressions)
    restarts    the number of random initialisations
    short       M steps after which only the best third of the runs is continued (em-EM; Biernacki,
                Celeux and Govaert 2003)
    tol         a run has converged when the rise that is still to come, extrapolated, is less than
                tol nats per case
    max_iter    M steps of a run at most
    ridge       penalty ½ ridge ‖slopes‖² of gate and experts (weight decay)
    irls_steps  Newton steps in each M step, for the gate and for categorical experts
    initial     parameters to begin with: one run, and rng is not used
    weight      (N,), not negative: weights w_n of the cases; None is 1

    An expert whose variance is at its floor and that has D + 1 + C cases or fewer has collapsed: it
    fits them exactly, and without the floor the likelihood would have no maximum. Such a run is
    returned only if all runs are such. EM finds local maxima; more restarts find better ones.

    Warns (ConvergenceWarning) if the returned run has not converged. Raises InputError for bad
    arguments.
    """
    # 1. Check the data and the settings.
    settings = {"family": family, "gate_x": gate_x, "ridge": ridge, "irls_steps": irls_steps}
    problem = prepare(x, y, n_experts, weight=weight, **settings)
    for name, value in (("max_iter", max_iter), ("restarts", restarts), ("short", short)):
        checks.integer(name, value)
    tol = checks.number("tol", tol, minimum=0)
    # 2. Run EM, from the given parameters or from several random ones.
    if initial is not None:
        runs = [run_em(problem, check_params(problem, initial, "initial"), tol, max_iter)]
    else:
        rng = checks.generator("rng", rng)
        runs = run_restarts(problem, rng, restarts, short, tol, max_iter)
    # 3. Keep the best run.
    best = max(runs, key=lambda run: rank(problem, run))
    if not best.converged:
        text = f"EM: not converged after {max_iter} steps; wanted a larger max_iter or tol"
        warnings.warn(text, ConvergenceWarning, stacklevel=3)
    return best


def run_em(
    problem: Problem, params: Params, tol: float, max_iter: int, history: tuple | Array = ()
) -> Fit:
    """E and M steps from `params` until convergence, or until max_iter M steps have been made.

    history    values of the objective before M steps that were made already; these steps count
    """
    objectives: list[float] = list(history)
    while True:
        expectation = e_step(problem, params)
        objectives.append(expectation.value)
        converged = has_converged(objectives, tol * problem.n_cases())
        if converged or len(objectives) > max_iter:
            values = np.array(objectives)
            results = expectation.log_likelihood, values, expectation.resp, converged
            return Fit(params, *results, problem.family, problem.weight)
        params = m_step(problem, params, expectation.resp)


def run_restarts(
    problem: Problem, rng: Rng, restarts: int, short: int, tol: float, max_iter: int
) -> list[Fit]:
    """Short runs from random initialisations, the best third of them continued to the end."""
    initialisations = [initial_params(problem, rng) for _ in range(restarts)]
    first_steps = max_iter if restarts == 1 else min(short, max_iter)
    runs = [run_em(problem, params, tol, first_steps) for params in initialisations]
    runs.sort(key=lambda run: rank(problem, run), reverse=True)
    best_third = runs[: -(-restarts // 3)]
    return [continue_em(problem, run, tol, max_iter) for run in best_third]


def continue_em(problem: Problem, run: Fit, tol: float, max_iter: int) -> Fit:
    """The same run with up to max_iter M steps; it ends as if it had not been interrupted."""
    if run.converged or len(run.history) > max_iter:
        return run
    return run_em(problem, run.params, tol, max_iter, run.history[:-1])


def has_converged(history: list[float] | Array, remaining: float) -> bool:
    """Whether the rise of the objective that is still to come is less than `remaining`.

    Near a maximum the rises shrink by a constant factor a, the ratio of the last two (Aitken), and
    the sum of all further rises is rise · a / (1 − a). While they grow, the maximum is not near.
    """
    if len(history) < 3:
        return False
    rise_before = history[-2] - history[-3]
    rise = history[-1] - history[-2]
    if rise <= 4 * np.finfo(float).eps * abs(history[-1]):
        return True  # rounding
    return rise < rise_before and rise * rise / (rise_before - rise) < remaining


def rank(problem: Problem, run: Any) -> tuple[bool, float]:
    """The sort key of a run: whether no expert has collapsed, then the objective.

    run    a `Fit`, or a `hme_fit.TreeFit`
    """
    if isinstance(problem.family, Categorical):
        return True, run.history[-1]
    var = run.params["var"]
    n_cases = problem.weighted(run.resp).sum(axis=0)
    few = n_cases <= len(problem.inputs.xt) + problem.y.shape[1] + 0.01
    collapsed = few & (problem.family.smallest(var) <= 1.01)
    return not collapsed.any(), run.history[-1]


# --- E step and M step ----------------------------------------------------------------------------


class Expectation(NamedTuple):
    """The result of an E step."""

    log_gate: ArrayNE
    log_density: ArrayNE
    resp: ArrayNE
    log_likelihood: float
    value: float  # the objective: log_likelihood − penalty


def e_step(problem: Problem, params: Params) -> Expectation:
    """The responsibilities h_i = g_i P_i / Σ_j g_j P_j of the paper, `resp`, in logarithms."""
    log_gate = log_softmax(gate_logits(params, problem.gate_inputs))
    log_density = problem.family.log_density(params, problem.inputs, problem.y)
    joint = log_gate + log_density
    total = logsumexp(joint, keepdims=True)
    if not np.isfinite(total).all():
        raise checks.InputError(
            "y: wanted cases with a density above 0, got one that is infinitely far from every "
            "expert at these parameters"
        )
    log_likelihood = float(problem.weighted(total).sum())
    value = log_likelihood - penalty(problem, params)
    return Expectation(log_gate, log_density, np.exp(joint - total), log_likelihood, value)


def m_step(problem: Problem, params: Params | None, resp: ArrayNE) -> Params:
    """New parameters of experts and gate. params=None: Newton steps begin with parameters 0."""
    experts = experts_m_step(problem, params, resp)
    return {**experts, **gate_m_step(problem, params, resp)}


def experts_m_step(problem: Problem, params: Params | None, resp: ArrayNE) -> Params:
    """Raise Σ_n w_n Σ_i resp_ni log P_ni: one regression per expert, with weights w resp_i."""
    settings = problem.weighted(resp), problem.ridge, problem.irls_steps
    return problem.family.m_step(params, problem.inputs, problem.y, *settings)


def gate_m_step(problem: Problem, params: Params | None, resp: ArrayNE) -> Params:
    """Raise Σ_n w_n Σ_i resp_ni log g_i(x_n): IRLS from the gate's parameters."""
    initial = None if params is None else np.vstack([params["U"], params["c"]])
    options = {"initial": initial, "ridge": problem.ridge, "max_steps": problem.irls_steps}
    coef, _ = multinomial_irls(problem.gate_inputs, resp, problem.weight, **options)
    return {"U": coef[:-1], "c": coef[-1]}


def penalty(problem: Problem, params: Params) -> float:
    """The ridge penalty of gate and experts."""
    if not problem.ridge:
        return 0.0
    U = params["U"] - params["U"].mean(axis=1, keepdims=True)
    return 0.5 * problem.ridge * float((U**2).sum()) + problem.family.penalty(params, problem.ridge)


@one_blas_thread()
def gradient(
    params: Params,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    *,
    family: Family,
    gate_x: Array | None = None,
    weight: ArrayN | None = None,
) -> tuple[float, Params]:
    """(log likelihood, its gradient with respect to the parameters of experts and gate).

    Fisher's identity: the gradient of Σ_n w_n log P(y_n | x_n) is the gradient of the E step's
    expected log likelihood with the responsibilities held constant. So the gate's logits have the
    gradient w (resp − g). There is no gradient with respect to x.
    """
    has_gate = isinstance(params, dict) and "c" in params and np.ndim(params["c"]) == 1
    settings = {"family": family, "gate_x": gate_x, "weight": weight}
    problem = prepare(x, y, len(params["c"]) if has_gate else 1, **settings)
    expectation = e_step(problem, check_params(problem, params))
    resp = problem.weighted(expectation.resp)
    dlogits = problem.weighted(expectation.resp - np.exp(expectation.log_gate))
    dc = dlogits.sum(axis=0)
    dU = problem.gate_inputs.xt[:-1] @ dlogits + problem.gate_inputs.mean[:, None] * dc
    grads = problem.family.gradient(params, problem.inputs, problem.y, resp)
    return expectation.log_likelihood, {**grads, "U": dU, "c": dc}


# --- Initialisation -------------------------------------------------------------------------------


def initial_params(problem: Problem, rng: Rng) -> Params:
    """Random initialisation: an M step from a random partition of the cases.

    All experts begin with the same variance. This keeps an expert that was given few cases from
    fitting them exactly at once and keeping no others.
    """
    resp = initial_responsibilities(problem, checks.generator("rng", rng))
    params = m_step(problem, None, resp)
    share = problem.weighted(resp)
    if problem.weight is not None:
        share = share / problem.weight.mean()
    return problem.family.pool_variance(params, share)


def initial_responsibilities(problem: Problem, rng: Rng) -> ArrayNE:
    """0.9 for the nearest of E cases drawn at random, and 0.1 divided among all experts."""
    E = problem.n_experts
    nearest_case = partition(coordinates(problem), E, rng, problem.weight)
    return 0.9 * (np.arange(E) == nearest_case[:, None]) + 0.1 / E


def coordinates(problem: Problem) -> ArrayND:
    """Standardised x, gate_x and y side by side: near means near in these."""
    family = problem.family
    y = np.eye(family.classes)[problem.y] if isinstance(family, Categorical) else problem.y
    parts = [problem.inputs.xt[:-1].T, y]
    if problem.gate_inputs is not problem.inputs:
        parts.append(problem.gate_inputs.xt[:-1].T)
    return np.hstack([standardise(part) / np.sqrt(max(part.shape[1], 1)) for part in parts])


def partition(z: ArrayND, n_parts: int, rng: Rng, weight: ArrayN | None = None) -> ArrayN:
    """The number of the nearest of `n_parts` cases drawn at random, for every case.

    A case of weight 2 is drawn as often as two equal cases.
    """
    if weight is None or not weight.any():
        centres = z[rng.choice(len(z), n_parts, replace=len(z) < n_parts)]
    else:
        few = bool(np.count_nonzero(weight) < n_parts)
        centres = z[rng.choice(len(z), n_parts, replace=few, p=weight / weight.sum())]
    return ((z[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1)


def standardise(x: ArrayND) -> ArrayND:
    """x with mean 0 and standard deviation 1 in every column; constant columns become 0."""
    deviation = x.std(axis=0)
    varies = deviation > 1e-12 * np.abs(x).max(axis=0, initial=0)
    return (x - x.mean(axis=0)) / np.where(varies, deviation, np.inf)
