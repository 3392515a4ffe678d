"""An evolution strategy: a population of mixtures, gates and experts; parents cross, children
mutate, the best live.

The (μ/2, λ)-σSA-ES of Beyer and Schwefel 2002 (Natural Computing 1:3-52), which adapts its
mutations by having them inherited. No gradient is taken: a child is judged by the loss alone. With
n numbers in a mixture, a child is made so:

    crossover    two parents are drawn; each expert, with its column of the gate, comes from one of the two
    step size    σ' = √(σ_a σ_b) · exp(τ N(0, 1)), τ = 1/√(2n), of the order 1/√n that they recommend
    mutation     θ' = θ + σ' N(0, I)
    selection    the μ children with the lowest loss are the next parents; the old ones die, however good (the comma)

The first μ parents are μ different starts, so that the search begins in as many places.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.training.methods import method
from moe_np.training.methods.method import Step


class Population(NamedTuple):
    """What was tried in a generation."""

    vectors: np.ndarray  # (λ, n) each a mixture, as `contract.flatten` writes it
    losses: np.ndarray  # (λ,)
    sigma: np.ndarray  # (λ,) step sizes


def train(problem, rng, *, start=None, parents=5, children=35, sigma=0.3):
    """Generations for ever; a Step's params are the best mixture so far. One pass a mixture that is
    looked at.

    sigma    the step size of the first parents. `start` is one of these parents; the others are drawn by `init`.
    """
    first = method.begin(problem, checks.generator("rng", rng), start)
    mu = checks.integer("parents", parents, minimum=2)
    lam = checks.integer("children", children)
    if lam <= mu:
        raise InputError(
            f"children: wanted more than the {mu} parents, or there is no selection; got {lam}"
        )
    owner = method.owners(first)
    vectors = np.stack(
        [method.flatten(first), *(method.flatten(problem.init(rng)) for _ in range(mu - 1))]
    )
    sizes = np.full(mu, checks.number("sigma", sigma, above=0))
    now = Population(vectors, method.losses_of(problem, vectors, first), sizes)
    best, loss, passes, number, changed = None, np.inf, float(mu), 0, ()
    while True:
        top = int(now.losses.argmin())
        if best is None or now.losses[top] < loss:
            best, loss = method.unflatten(now.vectors[top].copy(), first), float(now.losses[top])
        yield Step(number, loss, changed, best, now, passes)
        chosen = np.argsort(now.losses, kind="stable")[:mu]
        vectors, sizes = breed(rng, now.vectors[chosen], now.sigma[chosen], lam, owner)
        now = Population(vectors, method.losses_of(problem, vectors, first), sizes)
        number, passes, changed = number + 1, passes + lam, method.PARTS


def breed(rng, vectors, sigma, n_children, owner):
    """Crossover and mutation: parents (μ, n), their step sizes (μ,), owner (n,) -> children (λ, n),
    sizes (λ,).
    """
    mu, n = vectors.shape
    pair = np.array([rng.choice(mu, 2, replace=False) for _ in range(n_children)])
    from_second = rng.integers(2, size=(n_children, owner.max() + 1))[:, owner]
    crossed = np.where(from_second == 1, vectors[pair[:, 1]], vectors[pair[:, 0]])
    tau = 1 / np.sqrt(2 * n)
    sizes = np.sqrt(sigma[pair[:, 0]] * sigma[pair[:, 1]]) * np.exp(
        tau * rng.normal(size=n_children)
    )
    return crossed + sizes[:, None] * rng.normal(size=(n_children, n)), sizes
