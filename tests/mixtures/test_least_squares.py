"""Weighted least squares of a stack of problems, against plain formulas and in singular cases."""

import numpy as np
import pytest

from moe_np.mixtures import least_squares
from moe_np.mixtures.irls import multinomial_irls
from moe_np.mixtures.least_squares import gram, make_design, solve, weighted_least_squares
from tests.support.mixtures import with_ones


@pytest.mark.parametrize("ridge", [0.0, 3.0])
@pytest.mark.parametrize("keeps_products", [True, False])
def test_it_equals_lstsq_on_rows_times_root_of_weight(ridge, keeps_products, monkeypatch):
    if not keeps_products:
        monkeypatch.setattr(least_squares, "MAX_PRODUCTS", 0)
    rng = np.random.default_rng(1)
    x, y, weight = rng.normal(3, 1, (50, 4)), rng.normal(size=(50, 2)), rng.uniform(0, 1, (50, 3))
    assert (make_design(x).products is not None) == keeps_products
    coef = weighted_least_squares(x, y, weight, ridge)
    assert coef.shape == (3, 5, 2)
    for m in range(3):
        root = np.sqrt(weight[:, m])[:, None]
        # the ridge as further cases, and none for the constant
        rows = np.vstack([root * with_ones(x), np.sqrt(ridge) * np.eye(5)[:4]])
        targets = np.vstack([root * y, np.zeros((4, 2))])
        wanted = np.linalg.lstsq(rows, targets, rcond=None)[0]
        np.testing.assert_allclose(coef[m], wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("keeps_products", [True, False])
def test_gram_is_the_weighted_sum_of_outer_products(keeps_products, monkeypatch):
    if not keeps_products:
        monkeypatch.setattr(least_squares, "MAX_PRODUCTS", 0)
    rng = np.random.default_rng(0)
    x, weight = rng.normal(2, 1, (30, 3)), rng.uniform(size=(4, 30))
    z = with_ones(x - x.mean(axis=0))
    wanted = np.einsum("mn,ni,nj->mij", weight, z, z)
    np.testing.assert_allclose(gram(make_design(x), weight), wanted, rtol=1e-10, atol=1e-12)
    assert gram(make_design(x), weight[:0]).shape == (0, 4, 4)


def test_products_are_kept_up_to_a_number(monkeypatch):
    """(D + 1)(D + 2)/2 products of inputs for each of N cases: 7 · 10 = 70."""
    x = np.random.default_rng(0).normal(size=(7, 3))
    for largest, is_kept in ((70, True), (69, False)):
        monkeypatch.setattr(least_squares, "MAX_PRODUCTS", largest)
        assert (make_design(x).products is not None) == is_kept


def test_a_singular_system_has_the_smallest_solution():
    """Smallest in scaled coordinates: it is orthogonal to the null space there."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 2, 4))  # matrices of rank 2
    a = rows.swapaxes(1, 2) @ rows
    b = a @ rng.normal(size=(3, 4, 1))
    z = solve(a, b)
    np.testing.assert_allclose(a @ z, b, atol=1e-8)
    nullspace = np.linalg.svd(rows)[2][:, 2:]
    size = np.sqrt(np.einsum("mkk->mk", a))[:, :, None]
    np.testing.assert_allclose((nullspace * size.swapaxes(1, 2)) @ (size * z), 0, atol=1e-8)


def test_a_singular_problem_does_not_make_its_neighbours_less_exact():
    """Curvatures of 1e-8, which count, beside one of 0, which does not."""
    r = 1 - 1e-8
    a = np.array([[[1.0, 1], [1, 1]], [[1, r], [r, 1]]])
    z = solve(a, a @ np.array([[[1.0], [2]], [[1], [2]]]))
    np.testing.assert_allclose(z[:, :, 0], [[1.5, 1.5], [1, 2]], rtol=1e-6)


def test_collinear_inputs_few_cases_and_no_weight():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 2))
    x = np.column_stack([x, x[:, 0] - 2 * x[:, 1], np.full(30, 7.0)])
    y = with_ones(x) @ rng.normal(size=(5, 1))
    weight = np.zeros((30, 3))
    weight[:, 0] = 1
    weight[:2, 1] = 1
    coef = weighted_least_squares(x, y, weight)
    np.testing.assert_allclose(with_ones(x) @ coef[0], y, atol=1e-9)
    np.testing.assert_allclose(with_ones(x[:2]) @ coef[1], y[:2], atol=1e-9)  # two cases: exact
    assert np.abs(coef[1]).max() < 100 and not coef[2].any()
    initial = rng.normal(size=(3, 5, 1))
    coef = weighted_least_squares(x, y, weight, initial=initial)
    np.testing.assert_allclose(with_ones(x) @ coef[0], y, atol=1e-9)
    np.testing.assert_allclose(with_ones(x[:2]) @ coef[1], y[:2], atol=1e-9)
    np.testing.assert_allclose(coef[2], initial[2], rtol=1e-12)  # no weight: it stays


@pytest.mark.parametrize("value", [0.1, 1e8 / 3, -1e-9])
def test_a_constant_input_is_recognised_in_spite_of_rounding(value):
    """Its mean has a rounding error; divided by that, the slope was 1e16."""
    rng = np.random.default_rng(20)
    x = rng.normal(size=(41, 1))
    y, target = x + rng.normal(size=x.shape), np.eye(2)[rng.integers(2, size=41)]
    with_constant = np.column_stack([x, np.full(41, value)])
    regressions = [weighted_least_squares(z, y, np.ones((41, 1)))[0] for z in (with_constant, x)]
    classifiers = [multinomial_irls(z, target)[0] for z in (with_constant, x)]
    for coef, coef_without in (regressions, classifiers):
        assert not coef[1].any()
        np.testing.assert_allclose(coef[[0, 2]], coef_without, rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_whether_an_input_is_constant_does_not_depend_on_its_unit(unit):
    x = unit * np.array([[1, 1, 1], [1, 2, 1 + 1e-16], [1, 3, 1 + 1e-14]])
    assert least_squares.is_constant(x).tolist() == [True, False, False]
    assert least_squares.is_constant(x[:2]).tolist() == [True, False, True]


def test_inputs_far_from_the_origin():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 1))
    coef = weighted_least_squares(1e7 + x, 2 * x + 1, np.ones((40, 1)))[0]
    assert coef[0, 0] == pytest.approx(2, rel=1e-7)
