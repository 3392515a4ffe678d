"""CMA-ES: an evolution strategy that adapts the covariance matrix of its mutations.

N. Hansen and A. Ostermeier (2001), Completely derandomized self-adaptation in evolution strategies,
Evolutionary Computation 9:159-195, with the weights and constants of Hansen's tutorial (arXiv
1604.00772 of 2016, no negative weights). `diagonal` is sep-CMA-ES (Ros and Hansen 2008, A simple
modification in CMA-ES achieving linear time and space complexity, PPSN X), which learns only the
variances of the n numbers, (n + 2)/3 times as fast.

    paper      here          shape     meaning
    m          mean          (n,)      mean of the distribution: the weighted mean of μ parents
    σ          sigma         number    its size
    C          C             (n, n)    its covariance matrix without the size; (n,) if diagonal
    p_σ, p_c   path, path_c  (n,)      evolution paths: where the mean has been going, in the
                                       coordinates of the distribution and in ours
    x_k        vectors       (λ, n)    children m + σ N(0, C)
    w_i        weights       (μ,)      of the selected children, the best first

A mixture is one vector of n numbers (population.py). No gradient is used.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.params import flatten, unflatten
from moe_np.base.types import Array, Rng
from moe_np.training.methods import method
from moe_np.training.methods.method import MixtureParams, Problem, Step
from moe_np.training.methods.population import Vectors, population_losses

Vector = Annotated[np.ndarray, "n"]
Axes = tuple[Annotated[np.ndarray, "n, n"], Vector]  # (B, scale), C = B diag(scale²) Bᵀ


class Constants(NamedTuple):
    """The default strategy parameters of the tutorial for n numbers and λ children."""

    weights: Annotated[np.ndarray, "mu"]
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float  # E‖N(0, I)‖


def constants(n: int, lam: int, diagonal: bool) -> Constants:
    """The strategy parameters, in the notation of the tutorial's Table 1."""
    mu = lam // 2
    weights = np.log((lam + 1) / 2) - np.log(np.arange(1, mu + 1))
    weights /= weights.sum()
    mu_eff = 1 / (weights**2).sum()
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
    d_sigma = 1 + 2 * max(0.0, np.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
    faster = (n + 2) / 3 if diagonal else 1.0
    c_1 = min(1.0, faster * 2 / ((n + 1.3) ** 2 + mu_eff))
    c_mu = min(1 - c_1, faster * 2 * (mu_eff - 2 + 1 / mu_eff) / ((n + 2) ** 2 + mu_eff))
    chi = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    return Constants(weights, mu_eff, c_sigma, d_sigma, c_c, c_1, c_mu, chi)


class Distribution(NamedTuple):
    """The state between generations, and the children of the last generation."""

    mean: Vector
    sigma: float
    C: Array
    path: Vector
    path_c: Vector
    generation: int
    vectors: Vectors | None = None
    losses: Annotated[np.ndarray, "lambda"] | None = None


def train(
    problem: Problem,
    rng: Rng,
    *,
    initial: MixtureParams | None = None,
    sigma: float = 0.3,
    children: int | None = None,
    diagonal: bool = False,
) -> Iterator[Step]:
    """Generations without end; the params of a Step are the best mixture so far.

    sigma       size of the first distribution, whose mean is the initial mixture
    children    λ; None is the tutorial's 4 + ⌊3 ln n⌋

    One pass per mixture whose loss is computed.
    """
    best = method.initial_params(problem, checks.generator("rng", rng), initial)
    like = best
    mean = flatten(best)
    n = len(mean)
    children = 4 + int(3 * np.log(n)) if children is None else children
    lam = checks.integer("children", children, minimum=4)
    sigma = checks.number("sigma", sigma, greater_than=0)
    const = constants(n, lam, diagonal)
    C = np.ones(n) if diagonal else np.eye(n)
    dist = Distribution(mean, sigma, C, np.zeros(n), np.zeros(n), 0)
    axes = (np.eye(n), np.ones(n))
    axes_of_generation = 0
    loss = method.loss_of(problem, best)
    number = 0
    passes = 1.0
    updated = ()
    while True:
        yield Step(number, loss, updated, best, dist, passes)
        age = number - axes_of_generation
        if not diagonal and age * 10 * n * (const.c_1 + const.c_mu) >= 1:
            axes = principal_axes(dist.C)
            axes_of_generation = number
        z, y = draw(rng, dist, axes, lam, diagonal)
        vectors = dist.mean + dist.sigma * y
        losses = population_losses(problem, vectors, like)
        order = np.argsort(losses, kind="stable")
        if losses[order[0]] < loss:
            best = unflatten(vectors[order[0]].copy(), like)
            loss = float(losses[order[0]])
        dist = update(dist, const, z[order], y[order], axes, diagonal)
        dist = dist._replace(vectors=vectors, losses=losses)
        number += 1
        passes += lam
        updated = method.PARTS


def principal_axes(C: Annotated[np.ndarray, "n, n"]) -> Axes:
    """(B, scale) with C = B diag(scale²) Bᵀ. Eigenvalues that rounding made negative are raised."""
    values, B = np.linalg.eigh(C)
    return B, np.sqrt(np.maximum(values, 1e-14 * values[-1]))


def draw(
    rng: Rng, dist: Distribution, axes: Axes | None, lam: int, diagonal: bool
) -> tuple[Vectors, Vectors]:
    """z ~ N(0, I) and y = B (scale z) ~ N(0, C), both (λ, n)."""
    z = rng.normal(size=(lam, len(dist.mean)))
    if diagonal:
        return z, z * np.sqrt(dist.C)
    assert axes is not None  # None is for the diagonal form
    B, scale = axes
    return z, (z * scale) @ B.T


def update(
    dist: Distribution, const: Constants, z: Vectors, y: Vectors, axes: Axes | None, diagonal: bool
) -> Distribution:
    """Mean, paths, covariance and size from the children in the order of their losses."""
    w = const.weights
    mu = len(w)
    n = len(dist.mean)
    generation = dist.generation + 1
    step = w @ y[:mu]
    # 1. The path of the mean in coordinates where C is the identity: C^(−½) step = B z.
    white_step = w @ z[:mu]
    if not diagonal:
        assert axes is not None  # None is for the diagonal form
        white_step = white_step @ axes[0].T
    gain = np.sqrt(const.c_sigma * (2 - const.c_sigma) * const.mu_eff)
    path = (1 - const.c_sigma) * dist.path + gain * white_step
    length = np.linalg.norm(path)
    # 2. The path in our coordinates, without the step where the first path grows too fast (h_σ).
    expected = np.sqrt(1 - (1 - const.c_sigma) ** (2 * generation)) * const.chi
    h_sigma = length / expected < 1.4 + 2 / (n + 1)
    gain = h_sigma * np.sqrt(const.c_c * (2 - const.c_c) * const.mu_eff)
    path_c = (1 - const.c_c) * dist.path_c + gain * step
    # 3. The covariance matrix, from this path and from the steps of the children.
    if diagonal:
        rank_one = path_c**2
        rank_mu = w @ y[:mu] ** 2
    else:
        rank_one = np.outer(path_c, path_c)
        rank_mu = (y[:mu].T * w) @ y[:mu]
    lost = (not h_sigma) * const.c_1 * const.c_c * (2 - const.c_c)
    C = (1 - const.c_1 - const.c_mu + lost) * dist.C + const.c_1 * rank_one + const.c_mu * rank_mu
    # 4. The size, from the length of the first path; and the mean.
    sigma = dist.sigma * np.exp(const.c_sigma / const.d_sigma * (length / const.chi - 1))
    mean = dist.mean + dist.sigma * step
    return Distribution(mean, float(sigma), C, path, path_c, generation)
