"""CMA-ES: the cloud of mutations takes the shape of the steps that paid (Hansen and Ostermeier
2001).

N. Hansen and A. Ostermeier (2001), Completely derandomized self-adaptation in evolution strategies,
Evolutionary Computation 9:159-195, with the weights and constants of Hansen's tutorial (arXiv
1604.00772 of 2016, no negative weights). `diagonal` is sep-CMA-ES: Ros and Hansen 2008, A simple
modification in CMA-ES achieving linear time and space complexity (PPSN X), which learns the
variances of single numbers only, (n + 2)/3 times as fast.

    paper          here           shape     meaning
    m              mean           (n,)      centre of the cloud; the crossover of all μ parents is their weighted mean
    σ              sigma                    its size
    C              C              (n, n)    its shape; (n,) if diagonal
    p_σ, p_c       path, path_c   (n,)      where the mean has been going, in the cloud's own coordinates and in ours
    x_k            vectors        (λ, n)    children m + σ N(0, C)
    w_i            weights        (μ,)      of the children that are selected, the best first

A mixture is one vector of n numbers, gate and experts together. No gradient is taken.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.training.methods import method
from moe_np.training.methods.method import Step


class Constants(NamedTuple):
    """The default strategy parameters of the tutorial for n numbers and λ children."""

    weights: np.ndarray
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float  # E‖N(0, I)‖


class Cloud(NamedTuple):
    """The state between generations, and the children it last brought forth."""

    mean: np.ndarray
    sigma: float
    C: np.ndarray
    path: np.ndarray
    path_c: np.ndarray
    generation: int
    vectors: np.ndarray | None = None  # (λ, n)
    losses: np.ndarray | None = None  # (λ,)


def constants(n, lam, diagonal):
    mu = lam // 2
    weights = np.log((lam + 1) / 2) - np.log(np.arange(1, mu + 1))
    weights /= weights.sum()
    m = 1 / (weights**2).sum()
    c_sigma = (m + 2) / (n + m + 5)
    d_sigma = 1 + 2 * max(0.0, np.sqrt((m - 1) / (n + 1)) - 1) + c_sigma
    c_c = (4 + m / n) / (n + 4 + 2 * m / n)
    faster = (n + 2) / 3 if diagonal else 1.0
    c_1 = min(1.0, faster * 2 / ((n + 1.3) ** 2 + m))
    c_mu = min(1 - c_1, faster * 2 * (m - 2 + 1 / m) / ((n + 2) ** 2 + m))
    chi = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    return Constants(weights, m, c_sigma, d_sigma, c_c, c_1, c_mu, chi)


def train(problem, rng, *, start=None, sigma=0.3, children=None, diagonal=False):
    """Generations for ever; a Step's params are the best mixture so far. One pass a mixture that is
    looked at.

    sigma       size of the first cloud, which lies about the start
    children    λ, 4 + ⌊3 ln n⌋ by default, the tutorial's
    """
    first = method.begin(problem, checks.generator("rng", rng), start)
    mean = method.flatten(first)
    n = len(mean)
    lam = checks.integer(
        "children", 4 + int(3 * np.log(n)) if children is None else children, minimum=4
    )
    const = constants(n, lam, diagonal)
    C = np.ones(n) if diagonal else np.eye(n)
    cloud = Cloud(mean, checks.number("sigma", sigma, above=0), C, np.zeros(n), np.zeros(n), 0)
    axes, decomposed = (np.eye(n), np.ones(n)), 0
    best, loss = first, method.loss_of(problem, first)
    number, passes, changed = 0, 1.0, ()
    while True:
        yield Step(number, loss, changed, best, cloud, passes)
        if not diagonal and (number - decomposed) * 10 * n * (const.c_1 + const.c_mu) >= 1:
            axes, decomposed = principal_axes(cloud.C), number
        z, y = draw(rng, cloud, axes, lam, diagonal)
        vectors = cloud.mean + cloud.sigma * y
        losses = method.losses_of(problem, vectors, first)
        order = np.argsort(losses, kind="stable")
        if losses[order[0]] < loss:
            best, loss = method.unflatten(vectors[order[0]].copy(), first), float(losses[order[0]])
        cloud = update(cloud, const, z[order], y[order], axes, diagonal)._replace(
            vectors=vectors, losses=losses
        )
        number, passes, changed = number + 1, passes + lam, method.PARTS


def principal_axes(C):
    """C = B diag(scale²) Bᵀ: -> (B, scale). Rounding that makes an eigenvalue negative is undone."""
    values, B = np.linalg.eigh(C)
    return B, np.sqrt(np.maximum(values, 1e-14 * values[-1]))


def draw(rng, cloud, axes, lam, diagonal):
    """z ~ N(0, I) and y = B (scale z) ~ N(0, C), both (λ, n)."""
    z = rng.normal(size=(lam, len(cloud.mean)))
    if diagonal:
        return z, z * np.sqrt(cloud.C)
    B, scale = axes
    return z, (z * scale) @ B.T


def update(cloud, const, z, y, axes, diagonal):
    """Mean, paths, shape and size from the children in the order of their losses, as the tutorial
    sums it up.
    """
    w, n, mu = const.weights, len(cloud.mean), len(const.weights)
    generation = cloud.generation + 1
    step = w @ y[:mu]
    white = w @ z[:mu] if diagonal else (w @ z[:mu]) @ axes[0].T  # C^(−½) step = B z
    pull = np.sqrt(const.c_sigma * (2 - const.c_sigma) * const.mu_eff)
    path = (1 - const.c_sigma) * cloud.path + pull * white
    length = np.linalg.norm(path)
    expected = np.sqrt(1 - (1 - const.c_sigma) ** (2 * generation)) * const.chi
    short = length / expected < 1.4 + 2 / (
        n + 1
    )  # h_σ: a path that grows too fast is not fed into C
    path_c = (1 - const.c_c) * cloud.path_c + short * np.sqrt(
        const.c_c * (2 - const.c_c) * const.mu_eff
    ) * step
    if diagonal:
        rank_one, rank_mu = path_c**2, w @ y[:mu] ** 2
    else:
        rank_one, rank_mu = np.outer(path_c, path_c), (y[:mu].T * w) @ y[:mu]
    keep = 1 - const.c_1 - const.c_mu + (not short) * const.c_1 * const.c_c * (2 - const.c_c)
    C = keep * cloud.C + const.c_1 * rank_one + const.c_mu * rank_mu
    sigma = cloud.sigma * np.exp(const.c_sigma / const.d_sigma * (length / const.chi - 1))
    return Cloud(cloud.mean + cloud.sigma * step, float(sigma), C, path, path_c, generation)
