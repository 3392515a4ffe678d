"""Regression trees: scikit-learn's where splits are on one input, cost-complexity pruning, and what
an oblique split is for.
"""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.jordan1994 import oblique_tree


def problem(N=300, D=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32).astype(float)  # scikit-learn rounds to float32
    return x, np.where(x[:, 0] > 0.3, x[:, 1], -2 * x[:, 2]) + 0.1 * rng.normal(size=N)


def sklearn_tree(**options):
    return pytest.importorskip("sklearn.tree").DecisionTreeRegressor(random_state=0, **options)


@pytest.mark.parametrize("min_leaf", [5, 20])
def test_trees_with_splits_on_one_input_are_those_of_sklearn(min_leaf):
    x, y = problem()
    fitted = sklearn_tree(min_samples_leaf=min_leaf).fit(x, y)
    ours = oblique_tree.grow(x, y, oblique=False, min_leaf=min_leaf)
    assert len(ours.value) == fitted.tree_.node_count
    new = problem(seed=1)[0]
    wanted = fitted.predict(new)
    np.testing.assert_allclose(oblique_tree.predict(ours, new), wanted, rtol=1e-6, atol=1e-9)
    taken = oblique_tree.from_sklearn(fitted, x, y)
    np.testing.assert_allclose(oblique_tree.predict(taken, new), wanted, rtol=1e-12)
    np.testing.assert_allclose(np.sort(taken.error), np.sort(ours.error), rtol=1e-6, atol=1e-8)


def test_pruning_is_that_of_sklearn():
    x, y = problem()
    ours = oblique_tree.from_sklearn(sklearn_tree(min_samples_leaf=3).fit(x, y), x, y)
    alphas = np.unique([alpha for _, alpha in oblique_tree.weakest_links(ours)])
    path = sklearn_tree(min_samples_leaf=3).cost_complexity_pruning_path(x, y)
    wanted = np.unique(path.ccp_alphas[1:])
    np.testing.assert_allclose(alphas / len(y), wanted, rtol=1e-6, atol=1e-12)
    for alpha in alphas[[5, len(alphas) // 2, -3]] * 1.0001:
        fitted = sklearn_tree(min_samples_leaf=3, ccp_alpha=alpha / len(y)).fit(x, y)
        pruned = oblique_tree.prune(ours, alpha)
        np.testing.assert_allclose(oblique_tree.predict(pruned, x), fitted.predict(x), rtol=1e-9)


def test_the_chosen_alpha_is_the_best_of_all():
    x, y = problem()
    tree = oblique_tree.grow(x, y, min_leaf=2)
    new, wanted = problem(seed=2)

    def error(pruned):
        return ((wanted - oblique_tree.predict(pruned, new)) ** 2).sum()

    alphas = [alpha for _, alpha in oblique_tree.weakest_links(tree)]
    errors = {0.0: error(tree)}
    errors |= {alpha: error(oblique_tree.prune(tree, alpha)) for alpha in alphas}
    chosen = oblique_tree.choose_alpha(tree, new, wanted)
    assert errors[chosen] == pytest.approx(min(errors.values()), rel=1e-9)
    assert 0 < chosen < max(errors)


def test_an_oblique_step_takes_one_split():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    y = np.where(x @ [1.0, 1.0, -1.0] > 0, 1.0, 0.0)
    new = rng.normal(size=(400, 3))
    wanted = np.where(new @ [1.0, 1.0, -1.0] > 0, 1.0, 0.0)
    trees = {oblique: oblique_tree.grow(x, y, oblique=oblique) for oblique in (True, False)}
    error = {k: ((oblique_tree.predict(t, new) - wanted) ** 2).mean() for k, t in trees.items()}
    assert error[True] < 0.5 * error[False]
    assert abs(trees[True].direction[0] @ [1, 1, -1]) / np.sqrt(3) > 0.95


def test_edges():
    leaf = oblique_tree.grow(np.ones((1, 2)), np.array([3.0]))
    assert oblique_tree.predict(leaf, np.zeros((2, 2))).tolist() == [3.0, 3.0]
    assert oblique_tree.weakest_links(leaf) == []
    same = oblique_tree.grow(np.ones((20, 2)), np.arange(20.0))
    assert len(same.value) == 1, "equal inputs cannot be told apart"
    with pytest.raises(InputError, match="x: wanted at least one case"):
        oblique_tree.grow(np.ones((0, 2)), np.ones(0))


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_units_do_not_matter(scale):
    x, y = problem()
    tree = oblique_tree.grow(x, y)
    scaled = oblique_tree.grow(x * scale, y * scale)
    np.testing.assert_array_equal(tree.left, scaled.left)
    np.testing.assert_array_equal(scaled.value, tree.value * scale)
