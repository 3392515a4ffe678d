"""Regression with and without clusters: the same task with its structure present or taken away.

Two things are called clusters. The *inputs* may lie in separate clouds or in one; and the *targets*
may follow another rule in each region of the inputs (a regime), or one rule that holds everywhere.
`regimes` draws any of the four combinations with the same number of cases, the same mean and
covariance of the inputs, and targets of variance 1:

    clouds   True    x from K Gaussian clouds about centres m_k
             False   x from one Gaussian with the mean and covariance of those clouds
    rules    True    d = a_k·x + b_k, k the nearest centre: another straight rule in each region
             False   d = a sum of sines, smooth and the same everywhere
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks


class Task(NamedTuple):
    """What the cases of a task have in common; made by `make_task`."""

    centres: np.ndarray  # (K, D)
    slopes: np.ndarray  # (K, D)
    heights: np.ndarray  # (K,)
    waves: np.ndarray  # (M, D)  directions of the smooth target
    phases: np.ndarray  # (M,)
    noise: float


class Cases(NamedTuple):
    x: np.ndarray  # (N, D)
    d: np.ndarray  # (N, 1)
    region: np.ndarray  # (N,) the nearest centre


def make_task(rng, *, n_regions=4, d_model=2, apart=2.0, noise=0.1, n_waves=4):
    """Draw a task: centres on the corners of a cube of half-width `apart`, rules and waves at
    random.

    Raises InputError where there are more regions than corners.
    """
    K, D = checks.integer("n_regions", n_regions, minimum=2), checks.integer("d_model", d_model)
    if K > 2**D:
        raise checks.InputError(
            f"n_regions: wanted at most the {2**D} corners of {D} dimensions, got {K}"
        )
    corner = rng.permutation(2**D)[:K]
    centres = apart * (2.0 * ((corner[:, None] >> np.arange(D)) & 1) - 1)
    slopes, heights = rng.normal(size=(K, D)), rng.normal(size=K)
    heights = heights - (slopes * centres).sum(
        axis=1
    )  # so that the height at the centre is drawn, not the one at 0
    waves, phases = rng.normal(size=(n_waves, D)) / apart, rng.uniform(0, 2 * np.pi, n_waves)
    return Task(centres, slopes, heights, waves, phases, noise)


def draw(task, n, rng, *, clouds=True, rules=True):
    """n cases of a task. The targets are scaled to variance 1 (by the same factor in every draw)
    before noise.
    """
    x = _inputs(task, checks.integer("n", n, minimum=0), rng, clouds)
    region = ((x[:, None, :] - task.centres) ** 2).sum(axis=2).argmin(axis=1)
    mean, scale = _moments(task, clouds, rules)
    d = (_target(task, x, region, rules) - mean) / scale + task.noise * rng.normal(size=n)
    return Cases(x, d[:, None], region)


def _inputs(task, n, rng, clouds):
    K, D = task.centres.shape
    if clouds:
        return task.centres[rng.integers(K, size=n)] + CLOUD * rng.normal(size=(n, D))
    spread = task.centres - task.centres.mean(axis=0)
    covariance = spread.T @ spread / K + CLOUD**2 * np.eye(D)
    return task.centres.mean(axis=0) + rng.normal(size=(n, D)) @ np.linalg.cholesky(covariance).T


def _target(task, x, region, rules):
    if rules:
        return (task.slopes[region] * x).sum(axis=1) + task.heights[region]
    return np.sin(2 * x @ task.waves.T + task.phases).sum(axis=1)


def _moments(task, clouds, rules):
    """Mean and deviation of the target over many inputs, always the same ones."""
    x = _inputs(task, 4000, np.random.default_rng(0), clouds)
    region = ((x[:, None, :] - task.centres) ** 2).sum(axis=2).argmin(axis=1)
    target = _target(task, x, region, rules)
    return target.mean(), target.std()


CLOUD = 0.6  # deviation of a cloud
