"""CMA-ES: the tutorial's constants and update, what it learns, and that only the order of losses
matters.
"""

import numpy as np
import pytest

from moe_np.training.methods import cma_es, densities, evolutionary
from tests.support.training import first_steps, linear_problem, same_params


def test_constants_of_the_tutorial():
    """The defaults of arXiv 1604.00772 for n = 10: λ = 10, μ = 5."""
    c = cma_es.constants(10, 10, False)
    assert c.weights.sum() == pytest.approx(1)
    assert (np.diff(c.weights) < 0).all() and len(c.weights) == 5
    raw = np.log(5.5) - np.log([1, 2, 3, 4, 5])
    np.testing.assert_allclose(c.weights, raw / raw.sum())
    assert c.mu_eff == pytest.approx(3.1673, abs=1e-4)
    assert c.c_sigma == pytest.approx((3.1673 + 2) / (10 + 3.1673 + 5), abs=1e-5)
    assert c.d_sigma == pytest.approx(1 + c.c_sigma)
    assert c.c_1 == pytest.approx(2 / (11.3**2 + 3.1673), abs=1e-6)
    assert c.chi == pytest.approx(3.0847, abs=1e-3)  # √2 Γ(5.5)/Γ(5)
    faster = cma_es.constants(10, 10, True)
    assert faster.c_1 == pytest.approx(4 * c.c_1) and faster.c_mu == pytest.approx(4 * c.c_mu)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("factor", [0.3, 30.0])  # a path of ordinary length; one that is too long
def test_the_update_is_the_tutorials(diagonal, factor):
    """Every line of it written out once more, with C^(−½) as a matrix."""
    rng, n, lam = np.random.default_rng(2), 5, 8
    c = cma_es.constants(n, lam, diagonal)
    root = rng.normal(size=(n, n))
    C = rng.uniform(0.5, 2, n) if diagonal else root @ root.T + np.eye(n)
    full = np.diag(C) if diagonal else C
    axes = None if diagonal else cma_es.principal_axes(C)
    mean, path, path_c = rng.normal(size=n), rng.normal(size=n), rng.normal(size=n)
    before = cma_es.Distribution(mean, 0.7, C, factor * path, path_c, 3)
    z, y = cma_es.draw(rng, before, axes, lam, diagonal)
    after = cma_es.update(before, c, z, y, axes, diagonal)
    values, B = np.linalg.eigh(full)
    inverse_root = B @ np.diag(values**-0.5) @ B.T
    step = sum(c.weights[i] * y[i] for i in range(4))
    path = (1 - c.c_sigma) * before.path
    path = path + np.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * inverse_root @ step
    length = np.linalg.norm(path)
    h = length / np.sqrt(1 - (1 - c.c_sigma) ** 8) < (1.4 + 2 / (n + 1)) * c.chi
    assert h == (factor < 1)
    path_c = (1 - c.c_c) * path_c + h * np.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * step
    keep = 1 - c.c_1 - c.c_mu + (1 - h) * c.c_1 * c.c_c * (2 - c.c_c)
    new_C = keep * full + c.c_1 * np.outer(path_c, path_c)
    new_C = new_C + c.c_mu * sum(c.weights[i] * np.outer(y[i], y[i]) for i in range(4))
    np.testing.assert_allclose(after.mean, mean + 0.7 * step)
    np.testing.assert_allclose(after.path, path)
    np.testing.assert_allclose(after.path_c, path_c)
    np.testing.assert_allclose(after.C, np.diag(new_C) if diagonal else new_C)
    growth = np.exp(c.c_sigma / c.d_sigma * (length / c.chi - 1))
    assert after.sigma == pytest.approx(0.7 * growth) and after.generation == 4


def test_children_are_drawn_from_the_distribution():
    rng, root = np.random.default_rng(0), np.array([[2.0, 0], [1.0, 0.5]])
    dist = cma_es.Distribution(np.zeros(2), 1.0, root @ root.T, np.zeros(2), np.zeros(2), 0)
    z, y = cma_es.draw(rng, dist, cma_es.principal_axes(dist.C), 40_000, False)
    np.testing.assert_allclose(np.cov(y.T), dist.C, atol=0.07)
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=0.03)


def narrow_valley(seed=0, scale=30.0):
    """One linear expert whose loss is a long narrow valley that runs across the axes."""
    problem = linear_problem(seed, E=1, D=2, C=1)
    x = problem.x * np.array([1.0, scale]) @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    return problem._replace(x=x, y=x @ np.array([[1.0], [2.0]]), features=x)


def test_it_learns_the_shape_of_a_valley():
    problem = narrow_valley()
    last = first_steps(cma_es.train, problem, 150)[-1]
    C = last.cache.C[:3, :3]
    rows = np.hstack([problem.x, np.ones((40, 1))])
    curvature = rows.T @ rows / 40
    root = np.linalg.cholesky(curvature)
    values = np.linalg.eigvalsh(root.T @ C @ root)  # equal if C ∝ the inverse of the curvature
    assert values[-1] / values[0] < 30 < 900 < np.linalg.cond(curvature)
    assert abs(last.params["experts"]["W"].ravel() - [1, 2]).max() < 1e-3
    isotropic = first_steps(evolutionary.train, problem, 42)[-1]
    assert isotropic.passes > last.passes
    assert abs(isotropic.params["experts"]["W"].ravel() - [1, 2]).max() > 1e-3


def test_only_the_order_of_the_losses_matters():
    problem = linear_problem(3, E=1)
    forward, backward = densities.gaussian(2.5)
    wider = problem._replace(density_forward=forward, density_backward=backward)
    a = first_steps(cma_es.train, problem, 10)
    b = first_steps(cma_es.train, wider, 10)
    assert all(same_params(x.params, y.params) for x, y in zip(a, b, strict=True))
    assert a[-1].loss != b[-1].loss
