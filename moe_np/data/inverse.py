"""One question, several answers: the textbook's inverse problem, where the mean of the answers is
none of them.

C. M. Bishop (2006), Pattern Recognition and Machine Learning, section 5.6: draw t uniformly on (0,
1), let

    x = f(t) + noise,   f(t) = t + .3 sin(2π t),   noise uniform on (−.1, .1)

and then ask for t at a given x. f turns back twice, so in the middle three values of t give the
same x. K. P. Murphy (2012), Machine Learning: A Probabilistic Perspective, section 11.2.4, fits
three linear experts to the same picture.

Because prior and noise are uniform, the answer is known exactly: p(t | x) is 1 / length of {t:
|f(t) − x| < .1} on that set and 0 elsewhere.
"""

import numpy as np

from moe_np.base import checks

NOISE = 0.1
GRID = np.linspace(0, 1, 2001)  # of t


def curve(t):
    """f(t) = t + .3 sin(2π t), the forward problem without noise."""
    return t + 0.3 * np.sin(2 * np.pi * t)


def inverse_problem(n, rng):
    """Draw n cases: (x (n, 1), t (n, 1)), the input and the wanted output."""
    n = checks.integer("n", n, minimum=0)
    t = checks.generator("rng", rng).uniform(size=n)
    x = curve(t) + rng.uniform(-NOISE, NOISE, size=n)
    return x[:, None], t[:, None]


def branches(x):
    """The values of t on the grid's curve at which f(t) = x: a list of arrays, one an x; x (n,).

    Where x lies beyond the curve's end and noise alone can have brought it there, the nearest end.
    """
    x = checks.array("x", x, ("n",))
    f, step = curve(GRID), GRID[1]
    out = []
    for value in x:
        above = f - value
        cell = np.flatnonzero(above[:-1] * above[1:] <= 0)
        roots = GRID[cell] + step * above[cell] / (
            above[cell] - above[cell + 1]
        )  # straight line within a cell
        out.append(np.unique(roots) if len(roots) else GRID[[np.abs(above).argmin()]])
    return out


def distance_to_branch(x, t):
    """|t − nearest branch at x|: x (n,), t (n,) -> (n,)."""
    return np.array([np.abs(own - value).min() for own, value in zip(branches(x), t, strict=True)])


def possible(x, t):
    """Can t have led to x? t in (0, 1) and |f(t) − x| < .1. x (n,), t (n,) -> bool (n,)."""
    return (t > 0) & (t < 1) & (np.abs(curve(t) - x) < NOISE)


def log_density(x):
    """log p(t | x) of any possible t, exact but for the grid: the most that a model can reach on
    average. x (n,).
    """
    inside = np.abs(curve(GRID)[None, :] - np.asarray(x)[:, None]) < NOISE
    return -np.log(np.maximum(inside.mean(axis=1), 1 / len(GRID)))
