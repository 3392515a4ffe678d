"""How an expert's output becomes a probability of the answer. Pairs (o, y) -> (log_f, cache),
(dlog_f, cache) -> do.

    o      (N, E, C)    outputs of every expert
    log_f  (N, E)       log density, or log probability, of y under each expert

None of them differentiates y.
"""

import functools
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import number
from moe_np.base.numerics import sigmoid, softplus


class GaussianCache(NamedTuple):
    residual: np.ndarray  # (N, E, C)
    sigma: float


def gaussian_forward(o, y, sigma):
    """log N(y; o_i, σ² I) with a σ that is known and fixed. y (N, C)."""
    residual = y[:, None, :] - o
    constant = o.shape[2] * np.log(sigma * np.sqrt(2 * np.pi))
    return -0.5 * (residual * residual).sum(axis=2) / sigma**2 - constant, GaussianCache(
        residual, sigma
    )


def gaussian_backward(dlog_f, cache):
    """do_i = dlog_f_i (y − o_i) / σ²."""
    return dlog_f[:, :, None] * cache.residual / cache.sigma**2


def gaussian(sigma):
    """The pair for one σ."""
    return functools.partial(
        gaussian_forward, sigma=number("sigma", sigma, above=0)
    ), gaussian_backward


class BernoulliCache(NamedTuple):
    o: np.ndarray  # (N, E, 1)
    y: np.ndarray  # (N, 1) 0 or 1


def bernoulli_forward(o, y):
    """y log σ(o) + (1 − y) log(1 − σ(o)) = y o − softplus(o): one logit, two classes. y (N, 1) of 0
    and 1.
    """
    return (y[:, None, :] * o - softplus(o))[:, :, 0], BernoulliCache(o, y)


def bernoulli_backward(dlog_f, cache):
    """do = dlog_f (y − σ(o))."""
    return dlog_f[:, :, None] * (cache.y[:, None, :] - sigmoid(cache.o))
