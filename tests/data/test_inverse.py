"""The inverse problem: the forward curve, its branches and the exact density."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data import inverse


def test_cases_follow_the_forward_problem():
    x, t = inverse.inverse_problem(500, np.random.default_rng(0))
    assert x.shape == t.shape == (500, 1) and t.min() > 0 and t.max() < 1
    assert np.abs(x - inverse.curve(t)).max() < 0.1
    same_x, _ = inverse.inverse_problem(500, np.random.default_rng(0))
    np.testing.assert_array_equal(x, same_x)
    assert inverse.possible(x[:, 0], t[:, 0]).all()
    assert not inverse.possible(x[:, 0], t[:, 0] + 1).any()


def test_three_branches_in_the_middle_and_one_outside():
    low, middle, far = inverse.branches(np.array([0.1, 0.5, 1.08]))
    assert [len(b) for b in (low, middle, far)] == [1, 3, 1]
    for x, roots in ((0.1, low), (0.5, middle)):
        np.testing.assert_allclose(inverse.curve(roots), x, atol=1e-6)
    np.testing.assert_allclose(middle, [1 - middle[2], 0.5, middle[2]], atol=1e-9)
    assert far[0] == 1.0
    assert inverse.distance_to_branch(np.array([0.5]), np.array([0.52]))[0] == pytest.approx(0.02)


def test_the_exact_density_is_a_density_and_above_a_gaussian():
    x, t = inverse.inverse_problem(4000, np.random.default_rng(1))
    exact = inverse.log_density(x[:, 0])
    # p(t | x) = p(x | t) p(t) / p(x) with p(x | t) = 5 gives p(x), which the histogram shows too
    heights, edges = np.histogram(x[:, 0], bins=24, range=(-0.1, 1.1), density=True)
    fine = 5 * np.exp(-inverse.log_density(np.linspace(edges[0], edges[-1], 2400)))
    np.testing.assert_allclose(fine.reshape(24, -1).mean(axis=1), heights, atol=0.3)
    assert 1.2 < exact.mean() < 1.4
    without_x = -np.log(t.std() * np.sqrt(2 * np.pi * np.e))  # a Gaussian of t alone
    assert exact.mean() > without_x


def test_bad_input_is_named():
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        inverse.inverse_problem(3, 0)
    with pytest.raises(InputError, match="n: wanted a whole number"):
        inverse.inverse_problem(-1, np.random.default_rng(0))
