"""Densities of the target under each expert: pairs (o, y) -> (log_f, cache), (dlog_f, cache) -> do.

    o      (N, E, C)    outputs of the experts
    log_f  (N, E)       log density, or log probability, of y under each expert

y is not differentiated.
"""

import functools
from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.checks import number
from moe_np.base.numerics import sigmoid, softplus
from moe_np.base.types import ArrayNC, ArrayNE, ArrayNEC

ArrayNE1 = Annotated[np.ndarray, "N, E, 1"]
ArrayN1 = Annotated[np.ndarray, "N, 1"]


class GaussianCache(NamedTuple):
    residual: ArrayNEC  # y − o_i
    sigma: float


def gaussian_forward(o: ArrayNEC, y: ArrayNC, sigma: float) -> tuple[ArrayNE, GaussianCache]:
    """log N(y; o_i, σ² I) with a known σ that is not learned: (log_f, cache)."""
    residual = y[:, None, :] - o
    constant = o.shape[2] * np.log(sigma * np.sqrt(2 * np.pi))
    log_f = -0.5 * (residual * residual).sum(axis=2) / sigma**2 - constant
    return log_f, GaussianCache(residual, sigma)


def gaussian_backward(dlog_f: ArrayNE, cache: GaussianCache) -> ArrayNEC:
    """do_i = dlog_f_i (y − o_i) / σ²."""
    return dlog_f[:, :, None] * cache.residual / cache.sigma**2


def gaussian(sigma: float) -> tuple[Callable, Callable]:
    """The pair (forward, backward) for one σ. Raises InputError if it is not above 0."""
    sigma = number("sigma", sigma, greater_than=0)
    return functools.partial(gaussian_forward, sigma=sigma), gaussian_backward


class BernoulliCache(NamedTuple):
    o: ArrayNE1
    y: ArrayN1


def bernoulli_forward(o: ArrayNE1, y: ArrayN1) -> tuple[ArrayNE, BernoulliCache]:
    """y log σ(o) + (1 − y) log(1 − σ(o)) = y o − softplus(o): o is a logit, y is 0 or 1."""
    return (y[:, None, :] * o - softplus(o))[:, :, 0], BernoulliCache(o, y)


def bernoulli_backward(dlog_f: ArrayNE, cache: BernoulliCache) -> ArrayNE1:
    """do = dlog_f (y − σ(o))."""
    return dlog_f[:, :, None] * (cache.y[:, None, :] - sigmoid(cache.o))
