"""Small problems and all training methods: what the tests of `moe_np.training.methods` share."""

import functools
import itertools

import numpy as np

from moe_np.mixtures import jacobs1991
from moe_np.training.methods import (
    alternating,
    cma_es,
    densities,
    em,
    evolutionary,
    hard,
    joint,
    method,
    separate,
)

linear_experts = functools.partial(jacobs1991.experts_forward, kind="linear")


def gate_forward(params, x):
    _, cache = jacobs1991.gate_forward(params, x)
    return cache.s, cache


def least_squares(params, x, y, resp):
    """The exact M step of linear experts by np.linalg.lstsq, one expert after the other."""
    rows = np.hstack([x, np.ones((len(x), 1))])
    roots = [np.sqrt(weight)[:, None] for weight in resp.T]
    coef = np.array([np.linalg.lstsq(root * rows, root * y, rcond=None)[0] for root in roots])
    return {"W": coef[:, :-1], "b": coef[:, -1]}, 1.0


def linear_problem(seed=0, E=3, D=2, C=2, N=40, sigma=0.5, exact=False):
    """Linear experts with a linear gate on Gaussian cases with a bend.

    exact    whether the problem has an exact M step of the experts
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    y = np.abs(x @ rng.normal(size=(D, C))) + 0.3 * rng.normal(size=(N, C))
    x.flags.writeable = False
    y.flags.writeable = False

    def init(rng):
        params = jacobs1991.init_mixture(rng, E, D, C, init_range=0.7)
        return {
            "experts": {name: params[name] for name in ("W", "b")},
            "gate": {"U": rng.normal(size=(D, E)), "c": rng.normal(size=E)},
        }

    density_forward, density_backward = densities.gaussian(sigma)
    return method.Problem(
        x=x,
        y=y,
        features=x,
        init=init,
        experts_forward=linear_experts,
        experts_backward=jacobs1991.experts_backward,
        gate_forward=gate_forward,
        gate_backward=jacobs1991.gate_backward_from_logits,
        density_forward=density_forward,
        density_backward=density_backward,
        quality=lambda params, x, y: 0.0,
        fit_experts=least_squares if exact else None,
    )


def logistic_problem(seed=0, E=3):
    """The same with logistic experts and targets 0 and 1."""
    problem = linear_problem(seed, E, C=1)
    y = (problem.y > np.median(problem.y)).astype(float)
    return problem._replace(
        y=y,
        density_forward=densities.bernoulli_forward,
        density_backward=densities.bernoulli_backward,
    )


METHODS = {
    "joint": joint.train,
    "alternating": functools.partial(alternating.train, turn=3),
    "separate": functools.partial(separate.train, expert_steps=5),
    "em": em.train,
    "reinforce": hard.train,
    "straight-through": functools.partial(hard.train, estimator="straight_through"),
    "evolution strategy": functools.partial(evolutionary.train, parents=3, children=8),
    "CMA-ES": cma_es.train,
    "sep-CMA-ES": functools.partial(cma_es.train, diagonal=True),
}
WITHOUT_GRADIENT = ("evolution strategy", "CMA-ES", "sep-CMA-ES")


def first_steps(train, problem, n, seed=0, **options):
    """The first n steps of a training method."""
    return list(itertools.islice(train(problem, np.random.default_rng(seed), **options), n))


def same_params(a, b):
    return all(
        np.array_equal(a[part][name], b[part][name]) for part in method.PARTS for name in a[part]
    )
