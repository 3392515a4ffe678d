"""An evolution strategy: a population of mixtures with crossover, mutation and selection.

The (μ/2, λ)-σSA-ES of Beyer and Schwefel 2002 (Natural Computing 1:3-52), in which the step sizes
of the mutations are inherited. It uses no gradient: a child is judged by its loss. With n numbers
in a mixture (population.py), a child is made like this:

    crossover    two parents are drawn; each expert, with its column of the gate, comes from one
    step size    σ' = √(σ_a σ_b) · exp(τ N(0, 1)), τ = 1/√(2n), of the recommended order 1/√n
    mutation     θ' = θ + σ' N(0, I)
    selection    the μ children with the lowest loss are the next parents; the parents are
                 discarded, however good they are (the comma)

The first μ parents are different initialisations, so the search begins in several places.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.params import flatten, unflatten
from moe_np.base.types import Rng
from moe_np.training.methods import method
from moe_np.training.methods.method import MixtureParams, Problem, Step
from moe_np.training.methods.population import Vectors, expert_of_entry, population_losses

ArrayM = Annotated[np.ndarray, "M"]


class Population(NamedTuple):
    """The mixtures of a generation: (λ, n) children, or (μ, n) parents at the beginning."""

    vectors: Vectors
    losses: ArrayM
    sigma: ArrayM  # step sizes


def train(
    problem: Problem,
    rng: Rng,
    *,
    initial: MixtureParams | None = None,
    parents: int = 5,
    children: int = 35,
    sigma: float = 0.3,
) -> Iterator[Step]:
    """Generations without end; the params of a Step are the best mixture so far.

    parents, children    μ and λ
    sigma                step size of the first parents
    initial              one of these parents; the others are drawn by `problem.init`

    One pass per mixture whose loss is computed.
    """
    like = method.initial_params(problem, checks.generator("rng", rng), initial)
    mu = checks.integer("parents", parents, minimum=2)
    lam = checks.integer("children", children)
    if lam <= mu:
        raise InputError(
            f"children: wanted more than the {mu} parents, or there is no selection; got {lam}"
        )
    owner = expert_of_entry(like)
    drawn = [flatten(problem.init(rng), like) for _ in range(mu - 1)]
    vectors = np.stack([flatten(like), *drawn])
    sizes = np.full(mu, checks.number("sigma", sigma, greater_than=0))
    population = Population(vectors, population_losses(problem, vectors, like), sizes)
    best = None
    loss = np.inf
    number = 0
    passes = float(mu)
    updated = ()
    while True:
        top = int(population.losses.argmin())
        if best is None or population.losses[top] < loss:
            best = unflatten(population.vectors[top].copy(), like)
            loss = float(population.losses[top])
        yield Step(number, loss, updated, best, population, passes)
        chosen = np.argsort(population.losses, kind="stable")[:mu]
        chosen_vectors = population.vectors[chosen]
        vectors, sizes = breed(rng, chosen_vectors, population.sigma[chosen], lam, owner)
        population = Population(vectors, population_losses(problem, vectors, like), sizes)
        number += 1
        passes += lam
        updated = method.PARTS


def breed(
    rng: Rng, vectors: Vectors, sigma: ArrayM, n_children: int, owner: Annotated[np.ndarray, "n"]
) -> tuple[Vectors, ArrayM]:
    """Crossover and mutation: parents (μ, n) and their step sizes (μ,) -> children, step sizes.

    owner    (n,) whole numbers: entries with the same number are inherited together
    """
    mu, n = vectors.shape
    pair = np.array([rng.choice(mu, 2, replace=False) for _ in range(n_children)])
    from_second = rng.integers(2, size=(n_children, owner.max() + 1))[:, owner]
    crossed = np.where(from_second == 1, vectors[pair[:, 1]], vectors[pair[:, 0]])
    tau = 1 / np.sqrt(2 * n)
    factor = np.exp(tau * rng.normal(size=n_children))
    sizes = np.sqrt(sigma[pair[:, 0]] * sigma[pair[:, 1]]) * factor
    return crossed + sizes[:, None] * rng.normal(size=(n_children, n)), sizes
