"""A hierarchical mixture of experts (HME) fitted by EM from several initialisations: `hme_fit.fit`.

hme_em.py has the E and the M step (Jordan and Jacobs 1994, Algorithm 1), em.py the same search for
a mixture with one gate. The letters are those of hme.py.

An initialisation is an M step from a random partition of the cases that follows the tree: the top
gate divides all cases among its branches, by the nearest of b1 cases drawn at random, the gates
below divide the cases of their branch, and so on. So leaves below one gate begin as neighbours.
"""

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, ArrayNE, ArrayNEC, Params, Rng
from moe_np.mixtures import em, hme, hme_em
from moe_np.mixtures.em_families import Categorical, Family, Gaussian, draw_category
from moe_np.mixtures.em_problem import Problem, prepare


class TreeFit(NamedTuple):
    """The result of `fit`: a fitted tree with its predictions, scores and samples."""

    params: Params
    log_likelihood: float  # Σ_n w_n log P(y_n | x_n), without the ridge penalty
    history: Array  # (T,) log likelihood − penalty, before each M step and at the end
    resp: ArrayNE  # responsibility of each leaf
    converged: bool
    family: Family  # with the settings that depend on the data filled in
    weight: ArrayN | None = None  # of the cases, as `fit` was given it

    def gate(self, x: ArrayND) -> ArrayNE:
        """Π g along the path to each leaf: the mixture weights, before y is known."""
        return np.exp(hme.leaf_log_probs(hme.log_gates(self.params, self._inputs(x))))

    def outputs(self, x: ArrayND) -> ArrayNEC:
        """The mean, or the class probabilities, of every expert."""
        return hme.outputs(self.params, hme.linear_outputs(self.params, self._inputs(x)))

    def predict(self, x: ArrayND) -> ArrayNC | ArrayN:
        """The mean of y, (N, C); for labels the most probable class, (N,)."""
        mean = hme.predict(self.params, self._inputs(x))
        return mean.argmax(axis=1) if isinstance(self.family, Categorical) else mean

    def responsibilities(self, x: ArrayND, y: ArrayNC | ArrayN) -> ArrayNE:
        """h_ij of each leaf: the posterior probability of each expert, given y."""
        params, x, y = hme.check(self.params, x, y)
        return hme.forward(params, x, y)[1].post.resp

    def log_density(self, x: ArrayND, y: ArrayNC | ArrayN) -> ArrayN:
        """log P(y_n | x_n) of every case, in nats."""
        params, x, y = hme.check(self.params, x, y)
        return -hme.forward(params, x, y)[0]

    def sample(self, x: ArrayND, rng: Rng) -> tuple[ArrayNC | ArrayN, ArrayN]:
        """Draw a leaf with the probability of its path, then y from its expert: (y, leaf (N,))."""
        leaf = draw_category(self.gate(x), checks.generator("rng", rng))
        outputs = self.outputs(x)[np.arange(len(leaf)), leaf]
        return self.family.draw(self.params, leaf, outputs, rng), leaf

    def n_parameters(self) -> int:
        """The number of free parameters: (D + 1)(b − 1) of every gate, and those of the experts."""
        D = self.params["W"].shape[1]
        levels = [self.params[f"c{level}"] for level in range(1, hme.depth(self.params) + 1)]
        gates = sum(c.shape[0] * (c.shape[1] - 1) for c in levels)
        return (D + 1) * gates + self.family.n_parameters(self.params)

    def bic(self) -> float:
        """Schwarz's criterion (BIC) −2 log likelihood + log N · parameters; smaller is better."""
        n_cases = len(self.resp) if self.weight is None else self.weight.sum()
        return -2 * self.log_likelihood + np.log(n_cases) * self.n_parameters()

    def aic(self) -> float:
        """Akaike's criterion −2 log likelihood + 2 · parameters; smaller is better."""
        return -2 * self.log_likelihood + 2 * self.n_parameters()

    def _inputs(self, x):
        return checks.array("x", x, ("N", self.params["W"].shape[1]))


def fit(
    x: ArrayND,
    y: ArrayNC | ArrayN,
    tree: tuple[int, ...],
    *,
    family: Family,
    rng: Rng | None,
    restarts: int = 20,
    short: int = 50,
    tol: float = 1e-6,
    max_iter: int = 1000,
    ridge: float = 0.0,
    irls_steps: int = 1,
    initial: Params | None = None,
    weight: ArrayN | None = None,
) -> TreeFit:
    """Fit a tree by EM, from several random initialisations; returns the best `TreeFit`.

    tree        branches of a gate on each level, such as (2, 2)
    family      Gaussian(...) with floor None, or Categorical(...): the kind of experts
    initial     parameters to begin with: one run, and rng is not used
    weight      (N,), not negative: weights w_n of the cases; None is 1

    The other arguments, and which run is the best, are as in `em.fit`. Warns
    (em.ConvergenceWarning) if the returned run has not converged. Raises InputError for bad
    arguments.
    """
    # 1. Check the data and the settings.
    settings = {"ridge": ridge, "irls_steps": irls_steps, "weight": weight}
    problem = prepare(x, y, n_leaves(tree), family=family, **settings)
    if isinstance(family, Gaussian) and family.floor is not None:
        raise checks.InputError(f"family: wanted floor None for a tree, got {family.floor}")
    for name, value in (("max_iter", max_iter), ("restarts", restarts), ("short", short)):
        checks.integer(name, value)
    tol = checks.number("tol", tol, minimum=0)
    # 2. Run EM, from the given parameters or from several random ones.
    x = checks.array("x", x, ("N", "D")).astype(np.float64)
    if initial is not None:
        runs = [begin(problem, x, check_tree(initial, tree))]
    else:
        rng = checks.generator("rng", rng)
        runs = [begin(problem, x, initial_params(problem, tree, rng)) for _ in range(restarts)]
    if len(runs) > 1:
        runs = [advance(problem, run, tol, min(short, max_iter)) for run in runs]
        runs.sort(key=lambda run: em.rank(problem, run.fit), reverse=True)
    best_third = runs[: -(-len(runs) // 3)]
    fits = [advance(problem, run, tol, max_iter).fit for run in best_third]
    # 3. Keep the best run.
    best = max(fits, key=lambda run: em.rank(problem, run))
    if not best.converged:
        text = f"EM: not converged after {max_iter} steps; wanted a larger max_iter or tol"
        warnings.warn(text, em.ConvergenceWarning, stacklevel=2)
    return best


# --- Runs -----------------------------------------------------------------------------------------


class Run(NamedTuple):
    """A run of EM that can go on: its iterations, and the fit after those that were made."""

    iterations: Iterator[hme.Iteration]
    fit: TreeFit


def begin(problem: Problem, x: ArrayND, params: Params) -> Run:
    """A run from `params`, before its first M step."""
    is_fixed = isinstance(problem.family, Gaussian) and problem.family.covariance == "fixed"
    options = {"ridge": problem.ridge, "irls_steps": problem.irls_steps, "weight": problem.weight}
    hold = ("var",) if is_fixed else ()
    iterations = hme_em.train(params, x, problem.y, hold=hold, **options)
    return Run(iterations, fit_of(problem, next(iterations), np.zeros(0)))


def advance(problem: Problem, run: Run, tol: float, max_iter: int) -> Run:
    """The run after further M steps: until convergence, or until it has made max_iter of them."""
    fit = run.fit
    while not fit.converged and len(fit.history) <= max_iter:
        fit = fit_of(problem, next(run.iterations), fit.history)
        fit = fit._replace(converged=em.has_converged(fit.history, tol * problem.n_cases()))
    return run._replace(fit=fit)


def fit_of(problem: Problem, iteration: hme.Iteration, history: Array) -> TreeFit:
    """The fit at one iteration; `history` has the objectives of those before it."""
    if not np.isfinite(iteration.loss):
        raise checks.InputError(
            "y: wanted cases with a density above 0, got one that is infinitely far from every "
            "expert at these parameters"
        )
    params = iteration.params
    history = np.append(history, -iteration.loss - penalty(problem, params))
    resp = iteration.cache.post.resp
    return TreeFit(params, -iteration.loss, history, resp, False, problem.family, problem.weight)


def penalty(problem: Problem, params: Params) -> float:
    """The ridge penalty of gates and experts: ½ ridge ‖slopes − their mean over the branches‖²."""
    if not problem.ridge:
        return 0.0
    slopes = [params[f"U{level}"] for level in range(1, hme.depth(params) + 1)]
    gates = sum(float(((U - U.mean(axis=2, keepdims=True)) ** 2).sum()) for U in slopes)
    return 0.5 * problem.ridge * gates + problem.family.penalty(params, problem.ridge)


# --- Initialisation -------------------------------------------------------------------------------


def initial_params(problem: Problem, tree: tuple[int, ...], rng: Rng) -> Params:
    """Random initialisation: an M step from a random partition; all variances begin equal."""
    E = problem.n_experts
    family = problem.family
    leaf = partition_by_tree(em.coordinates(problem), tree, rng, problem.weight)
    resp = 0.9 * (np.arange(E) == leaf[:, None]) + 0.1 / E
    gates = itertools.accumulate(tree[:-1], initial=1, func=lambda P, b: P * b)
    flat = [np.zeros((len(leaf), P, b)) for P, b in zip(gates, tree, strict=True)]
    post = hme.posterior(flat, np.log(resp))
    is_gaussian = isinstance(family, Gaussian)
    C = problem.y.shape[1] if is_gaussian else family.classes
    covariance = family.covariance if is_gaussian else None
    covariance = "shared" if covariance == "fixed" else covariance
    zero = hme.init(rng, tree, len(problem.inputs.mean), C, init_range=0.0, covariance=covariance)
    options = {"ridge": problem.ridge, "irls_steps": problem.irls_steps, "weight": problem.weight}
    params = hme_em.m_step(zero, problem.inputs, problem.y, post, family=family, **options)
    share = problem.weighted(post.resp)
    return family.pool_variance(params, share * (len(share) / share.sum()))


def partition_by_tree(
    z: ArrayND, tree: tuple[int, ...], rng: Rng, weight: ArrayN | None = None
) -> ArrayN:
    """The leaf of every case: each gate divides its cases by `em.partition`."""
    branch = np.zeros(len(z), int)
    P = 1
    for b in tree:
        below = np.zeros(len(z), int)
        for gate in range(P):
            rows = np.flatnonzero(branch == gate)
            if len(rows):
                part_weight = None if weight is None else weight[rows]
                below[rows] = em.partition(z[rows], b, rng, part_weight)
        branch = branch * b + below
        P *= b
    return branch


# --- Input validation -----------------------------------------------------------------------------


def n_leaves(tree: tuple[int, ...]) -> int:
    """The number of experts of a tree, after checking its numbers of branches."""
    if not isinstance(tree, (tuple, list)) or not tree:
        raise checks.InputError(
            f"tree: wanted numbers of branches, one per level, such as (2, 2); got "
            f"{checks.text(tree)}"
        )
    return math.prod(checks.integer(f"tree[{i}]", branches) for i, branches in enumerate(tree))


def check_tree(initial: Params, tree: tuple[int, ...]) -> Params:
    """`initial`, after checking that it has the gates of `tree`; `hme.check` checks the rest."""
    checks.mapping("initial", initial, tuple(f"c{level + 1}" for level in range(len(tree))))
    if hme.branching(initial) != tuple(tree):
        raise checks.InputError(f"initial: wanted the tree {tuple(tree)}, got another one")
    return initial
