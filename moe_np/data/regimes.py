"""Regression with and without clusters: the same task with its structure present or taken away.

Two things are called clusters. The *inputs* may lie in separate clouds or in one; and the *targets*
may follow another rule in each region of the inputs (a regime), or one rule that holds everywhere.
`draw` draws any of the four combinations with the same number of cases, the same mean and
covariance of the inputs, and targets of variance 1:

    clouds   True    x from K Gaussian clouds about centres m_k
             False   x from one Gaussian with the mean and covariance of those clouds
    rules    True    d = a_k·x + b_k, k the nearest centre: another straight rule in each region
             False   d = a sum of sines, smooth and the same everywhere
             Waves   d = another sum of sines in each region, which no straight rule can follow
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayND, Rng

CLOUD = 0.6  # standard deviation of a cloud


class Task(NamedTuple):
    """What the cases of a task have in common; made by `make_task`."""

    centres: Annotated[np.ndarray, "K, D"]
    slopes: Annotated[np.ndarray, "K, D"]
    heights: Annotated[np.ndarray, "K"]
    waves: Annotated[np.ndarray, "M, D"]  # directions of the smooth target
    phases: Annotated[np.ndarray, "M"]
    noise: float


class Waves(NamedTuple):
    """A sum of sines for each region; made by `make_waves`."""

    directions: Annotated[np.ndarray, "K, M, D"]
    phases: Annotated[np.ndarray, "K, M"]


class Cases(NamedTuple):
    """The cases of one draw."""

    x: ArrayND
    d: Annotated[np.ndarray, "N, 1"]
    region: ArrayN  # number of the nearest centre


def make_task(
    rng: Rng,
    *,
    n_regions: int = 4,
    d_model: int = 2,
    apart: float = 2.0,
    noise: float = 0.1,
    n_waves: int = 4,
) -> Task:
    """Draw a task: centres at corners of a cube of half-width `apart`, random rules and waves.

    Raises InputError where there are more regions than corners.
    """
    K = checks.integer("n_regions", n_regions, minimum=2)
    D = checks.integer("d_model", d_model)
    if K > 2**D:
        raise checks.InputError(
            f"n_regions: wanted at most the {2**D} corners of {D} dimensions, got {K}"
        )
    corner = rng.permutation(2**D)[:K]
    centres = apart * (2.0 * ((corner[:, None] >> np.arange(D)) & 1) - 1)
    slopes = rng.normal(size=(K, D))
    height_at_centre = rng.normal(size=K)
    heights = height_at_centre - (slopes * centres).sum(axis=1)  # at x = 0
    waves = rng.normal(size=(n_waves, D)) / apart
    phases = rng.uniform(0, 2 * np.pi, n_waves)
    return Task(centres, slopes, heights, waves, phases, noise)


def make_waves(task: Task, rng: Rng) -> Waves:
    """Draw a sum of sines for each region of a task, as many as in its smooth target."""
    K = len(task.centres)
    M, D = task.waves.shape
    scale = np.abs(task.centres).max()
    return Waves(rng.normal(size=(K, M, D)) / scale, rng.uniform(0, 2 * np.pi, (K, M)))


def draw(task: Task, n: int, rng: Rng, *, clouds: bool = True, rules: bool | Waves = True) -> Cases:
    """Draw n cases of a task.

    Before noise is added the targets are scaled to variance 1, by the same factor in every draw.
    """
    x = _inputs(task, checks.integer("n", n, minimum=0), rng, clouds)
    region = _nearest_centre(task, x)
    mean, sd = _moments(task, clouds, rules)
    d = (_target(task, x, region, rules) - mean) / sd + task.noise * rng.normal(size=n)
    return Cases(x, d[:, None], region)


def _inputs(task, n, rng, clouds):
    K, D = task.centres.shape
    if clouds:
        return task.centres[rng.integers(K, size=n)] + CLOUD * rng.normal(size=(n, D))
    deviation = task.centres - task.centres.mean(axis=0)
    covariance = deviation.T @ deviation / K + CLOUD**2 * np.eye(D)
    return task.centres.mean(axis=0) + rng.normal(size=(n, D)) @ np.linalg.cholesky(covariance).T


def _nearest_centre(task, x):
    return ((x[:, None, :] - task.centres) ** 2).sum(axis=2).argmin(axis=1)


def _target(task, x, region, rules):
    if isinstance(rules, Waves):
        angles = 2 * np.einsum("nd,nmd->nm", x, rules.directions[region]) + rules.phases[region]
        return np.sin(angles).sum(axis=1)
    if rules:
        return (task.slopes[region] * x).sum(axis=1) + task.heights[region]
    return np.sin(2 * x @ task.waves.T + task.phases).sum(axis=1)


def _moments(task, clouds, rules):
    """Mean and standard deviation of the target over many inputs, always the same ones."""
    x = _inputs(task, 4000, np.random.default_rng(0), clouds)
    target = _target(task, x, _nearest_centre(task, x), rules)
    return target.mean(), target.std()
