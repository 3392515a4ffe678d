"""The textbook inverse problem: one input has several right outputs; their mean is not one.

C. M. Bishop (2006), Pattern Recognition and Machine Learning, section 5.6: draw t uniformly on
(0, 1), let

    x = f(t) + noise,   f(t) = t + .3 sin(2π t),   noise uniform on (−.1, .1)

and then predict t from x. f turns back twice, so in the middle three values of t give the same x.
K. P. Murphy (2012), Machine Learning: A Probabilistic Perspective, section 11.2.4, fits three
linear experts to the same picture.

Because prior and noise are uniform, the answer is known exactly: p(t | x) is 1 / length of
{t: |f(t) − x| < .1} on that set and 0 elsewhere.
"""

from typing import Annotated

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, Rng

NOISE = 0.1
GRID = np.linspace(0, 1, 2001)  # of t

ArrayN1 = Annotated[np.ndarray, "N, 1"]


def curve(t: Array) -> Array:
    """f(t) = t + .3 sin(2π t), the forward problem without noise."""
    return t + 0.3 * np.sin(2 * np.pi * t)


def inverse_problem(n: int, rng: Rng) -> tuple[ArrayN1, ArrayN1]:
    """Draw n cases: (x, t), the input and the wanted output."""
    n = checks.integer("n", n, minimum=0)
    t = checks.generator("rng", rng).uniform(size=n)
    x = curve(t) + rng.uniform(-NOISE, NOISE, size=n)
    return x[:, None], t[:, None]


def branches(x: ArrayN) -> list[Array]:
    """For each x the values of t at which f(t) = x, from straight lines between the points of GRID.

    Where x lies beyond an end of the curve, which only noise can cause, the nearest end.
    """
    x = checks.array("x", x, ("n",))
    f = curve(GRID)
    step = GRID[1]
    out = []
    for value in x:
        difference = f - value
        cell = np.flatnonzero(difference[:-1] * difference[1:] <= 0)
        drop = difference[cell] - difference[cell + 1]
        roots = GRID[cell] + step * difference[cell] / drop
        nearest_end = GRID[[np.abs(difference).argmin()]]
        out.append(np.unique(roots) if len(roots) else nearest_end)
    return out


def distance_to_branch(x: ArrayN, t: ArrayN) -> ArrayN:
    """|t − nearest branch at x|."""
    pairs = zip(branches(x), t, strict=True)
    return np.array([np.abs(values - prediction).min() for values, prediction in pairs])


def possible(x: ArrayN, t: ArrayN) -> ArrayN:
    """Whether t can have led to x: t in (0, 1) and |f(t) − x| < .1. bool (N,)."""
    return (t > 0) & (t < 1) & (np.abs(curve(t) - x) < NOISE)


def log_density(x: ArrayN) -> ArrayN:
    """log p(t | x) of any possible t: the largest mean log density that a model can reach.

    Exact up to the spacing of GRID.
    """
    inside = np.abs(curve(GRID)[None, :] - np.asarray(x)[:, None]) < NOISE
    return -np.log(np.maximum(inside.mean(axis=1), 1 / len(GRID)))
