"""Predicted distributions against sums and integrals, and against samples."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from moe_np.base.checks import InputError
from moe_np.estimators import PredictedClasses, PredictedDensity


@pytest.fixture
def density():
    rng = np.random.default_rng(0)
    weight = rng.dirichlet(np.ones(3), 4)
    var = rng.uniform(0.2, 2, (3, 1, 1))
    return PredictedDensity(weight, 2 * rng.normal(size=(4, 3, 1)), var, ())


GRID = np.linspace(-25, 25, 20001)
STEP = GRID[1] - GRID[0]


@pytest.mark.seconds
def test_mean_std_and_cdf_are_integrals_of_the_density(density):
    p = np.exp([density.log_density(np.full(4, y)) for y in GRID])  # (20001, 4)
    np.testing.assert_allclose(p.sum(axis=0) * STEP, 1)
    mean = GRID @ p * STEP
    np.testing.assert_allclose(density.mean(), mean)
    np.testing.assert_allclose(density.std(), np.sqrt(GRID**2 @ p * STEP - mean**2))
    np.testing.assert_allclose(density.cdf(np.zeros(4)), p[GRID < 0].sum(axis=0) * STEP, atol=2e-3)


@pytest.mark.parametrize("p", [0.001, 0.3, 0.5, 0.99])
def test_the_quantile_is_the_inverse_of_the_cdf(density, p):
    quantile = density.quantile(p)
    assert quantile.shape == (4,)
    np.testing.assert_allclose(density.cdf(quantile), p, rtol=1e-9)


def test_an_interval_holds_its_share(density):
    low, high = density.interval(0.8)
    np.testing.assert_allclose(density.cdf(high) - density.cdf(low), 0.8)
    with pytest.raises(InputError, match="level: wanted a finite number above 0 and below 1"):
        density.interval(90)
    with pytest.raises(InputError, match="p: wanted a finite number above 0 and below 1"):
        density.quantile(0)


def test_several_outputs():
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(1)
    root = rng.normal(size=(2, 3, 3)) + 2 * np.eye(3)
    var = root @ root.swapaxes(1, 2)
    weight = np.array([[0.3, 0.7], [1.0, 0.0]])
    means = rng.normal(size=(2, 2, 3))
    density = PredictedDensity(weight, means, var, (3,))
    y = rng.normal(size=(2, 3))
    parts = [[multivariate_normal.pdf(y[n], means[n, e], var[e]) for e in (0, 1)] for n in (0, 1)]
    np.testing.assert_allclose(density.log_density(y), np.log((weight * parts).sum(axis=1)))
    assert density.quantile(0.5).shape == density.std().shape == (2, 3)
    np.testing.assert_allclose(density.quantile(0.5)[1], means[1, 0])  # a single Gaussian
    np.testing.assert_allclose(density.std()[1], np.sqrt(np.diag(var[0])))


def test_entropy_and_disagreement_of_classes():
    certain = np.eye(2)[None]  # two experts that are certain of different classes
    same = np.array([[[0.2, 0.8], [0.2, 0.8]]])
    weight = np.array([[0.5, 0.5]])
    log2 = np.log(2)
    opposed = PredictedClasses(weight, certain, np.array(["a", "b"]))
    np.testing.assert_allclose([opposed.entropy()[0], opposed.disagreement()[0]], [log2, log2])
    agreed = PredictedClasses(weight, same, np.array(["a", "b"]))
    np.testing.assert_allclose(agreed.probabilities(), same[:, 0])
    assert agreed.disagreement() == 0 and 0 < agreed.entropy() < log2
