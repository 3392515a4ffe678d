"""Regression trees: scikit-learn's where splits are straight, cost-complexity, and what a slanted
split is for.
"""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.jordan1994 import oblique_tree as T


def problem(N=300, D=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32).astype(float)  # scikit-learn rounds to float32
    return x, np.where(x[:, 0] > 0.3, x[:, 1], -2 * x[:, 2]) + 0.1 * rng.normal(size=N)


def sklearn_tree(**options):
    return pytest.importorskip("sklearn.tree").DecisionTreeRegressor(random_state=0, **options)


@pytest.mark.parametrize("min_leaf", [5, 20])
def test_straight_trees_are_those_of_sklearn(min_leaf):
    x, y = problem()
    theirs = sklearn_tree(min_samples_leaf=min_leaf).fit(x, y)
    ours = T.grow(x, y, slanted=False, min_leaf=min_leaf)
    assert len(ours.value) == theirs.tree_.node_count
    new = problem(seed=1)[0]
    np.testing.assert_allclose(T.predict(ours, new), theirs.predict(new), rtol=1e-6, atol=1e-9)
    taken = T.from_sklearn(theirs, x, y)
    np.testing.assert_allclose(T.predict(taken, new), theirs.predict(new), rtol=1e-12)
    np.testing.assert_allclose(np.sort(taken.error), np.sort(ours.error), rtol=1e-6, atol=1e-8)


def test_pruning_is_that_of_sklearn():
    x, y = problem()
    grown = sklearn_tree(min_samples_leaf=3).fit(x, y)
    ours = T.from_sklearn(grown, x, y)
    alphas = np.unique([a for _, a in T.weakest_links(ours)])
    path = sklearn_tree(min_samples_leaf=3).cost_complexity_pruning_path(x, y)
    np.testing.assert_allclose(
        alphas / len(y), np.unique(path.ccp_alphas[1:]), rtol=1e-6, atol=1e-12
    )
    for alpha in alphas[[5, len(alphas) // 2, -3]] * 1.0001:
        theirs = sklearn_tree(min_samples_leaf=3, ccp_alpha=alpha / len(y)).fit(x, y)
        np.testing.assert_allclose(T.predict(T.prune(ours, alpha), x), theirs.predict(x), rtol=1e-9)


def test_the_chosen_alpha_is_the_best_of_all():
    x, y = problem()
    tree, (new, wanted) = T.grow(x, y, min_leaf=2), problem(seed=2)
    errors = {0.0: ((wanted - T.predict(tree, new)) ** 2).sum()}
    errors |= {
        a: ((wanted - T.predict(T.prune(tree, a), new)) ** 2).sum()
        for _, a in T.weakest_links(tree)
    }
    chosen = T.choose_alpha(tree, new, wanted)
    assert errors[chosen] == pytest.approx(min(errors.values()), rel=1e-9)
    assert 0 < chosen < max(errors)


def test_a_slanted_step_takes_one_split():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    y = np.where(x @ [1.0, 1.0, -1.0] > 0, 1.0, 0.0)
    new = rng.normal(size=(400, 3))
    wanted = np.where(new @ [1.0, 1.0, -1.0] > 0, 1.0, 0.0)
    error = {
        s: ((T.predict(T.grow(x, y, slanted=s), new) - wanted) ** 2).mean() for s in (True, False)
    }
    assert error[True] < 0.5 * error[False]
    first = T.grow(x, y).direction[0]
    assert abs(first @ [1, 1, -1]) / np.sqrt(3) > 0.95


def test_edges():
    one = T.grow(np.ones((1, 2)), np.array([3.0]))
    assert T.predict(one, np.zeros((2, 2))).tolist() == [3.0, 3.0] and T.weakest_links(one) == []
    same = T.grow(np.ones((20, 2)), np.arange(20.0))
    assert len(same.value) == 1, "equal inputs cannot be told apart"
    with pytest.raises(InputError, match="x: wanted at least one case"):
        T.grow(np.ones((0, 2)), np.ones(0))


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_units_do_not_matter(scale):
    x, y = problem()
    one, other = T.grow(x, y), T.grow(x * scale, y * scale)
    np.testing.assert_array_equal(one.left, other.left)
    np.testing.assert_array_equal(other.value, one.value * scale)
