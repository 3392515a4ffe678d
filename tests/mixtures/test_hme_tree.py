"""The tree of a hierarchical mixture: initialisation, subtrees, validation of parameters."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import hme, hme_tree
from tests.support.mixtures import C, D, each_covariance, random_tree


def test_the_initialisation_is_within_its_range_and_has_the_right_shapes():
    rng = np.random.default_rng(0)
    options = {"init_range": 0.1, "covariance": "full", "var": 0.5}
    params = hme_tree.init(rng, (2, 3), 4, 2, **options)
    assert {k: v.shape for k, v in params.items()} == {
        "U1": (4, 1, 2), "c1": (1, 2), "U2": (4, 2, 3), "c2": (2, 3), "W": (6, 4, 2), "b": (6, 2),
        "var": (6, 2, 2),
    }  # fmt: skip
    assert all(0 < abs(v).max() <= 0.1 for k, v in params.items() if k != "var")
    np.testing.assert_array_equal(params["var"], np.tile(0.5 * np.eye(2), (6, 1, 1)))


def test_depth_and_branching():
    params, _, _ = random_tree((2, 3, 2))
    assert hme_tree.depth(params) == 3 and hme_tree.branching(params) == (2, 3, 2)


@each_covariance
def test_subtrees_joined_are_the_tree(covariance):
    params, _, _ = random_tree((3, 2, 2), covariance)
    parts = [hme_tree.subtree(params, branch) for branch in range(3)]
    assert [hme_tree.branching(part) for part in parts] == [(2, 2)] * 3
    joined = hme_tree.join(params["U1"][:, 0], params["c1"][0], parts)
    assert set(joined) == set(params)
    assert all(np.array_equal(joined[name], params[name]) for name in params)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"W": np.ones((3, D, C))}, r"params\['W'\]: wanted shape \(4, 3, 2\), got \(3, 3, 2\)"),
        ({"U2": np.full((D, 2, 2), np.nan)}, r"params\['U2'\]: wanted finite numbers"),
        (
            {"c2": np.full((2, 2), -np.inf)},
            r"params\['c2'\]: wanted numbers, or −inf for branches that are not there",
        ),
        (
            {"c2": np.full((2, 2), np.inf)},
            r"params\['c2'\]: wanted numbers, or −inf for branches that are not there",
        ),
        ({"extra": np.ones(1)}, "params: wanted the keys U1, c1, U2, c2, W, b, var; got"),
        ({"var": np.ones((4, 2))}, r"params\['var'\]: wanted shape"),
        ({"var": np.array([1.0, 2, -1, 1])}, r"params\['var'\]: wanted variances above 0"),
        ({"var": np.array(0.0)}, r"params\['var'\]: wanted variances above 0"),
        (
            {"var": np.zeros((4, 2, 2))},
            r"params\['var'\]: wanted variances above 0, or positive definite matrices",
        ),
    ],
)
def test_bad_parameters_are_named(change, words):
    params, x, y = random_tree((2, 2))
    with pytest.raises(InputError, match=words):
        hme_tree.check({**params, **change}, x, y)


def test_bad_data_are_named():
    params, x, y = random_tree((2, 2))
    with pytest.raises(InputError, match="y: wanted shape"):
        hme_tree.check(params, x, y[:5])
    with pytest.raises(InputError, match="x: wanted at least one case"):
        hme_tree.check(params, x[:0], y[:0])
    with pytest.raises(InputError, match="params: wanted a dict of arrays, got NoneType"):
        hme_tree.check(None, x, y)
    with pytest.raises(InputError, match="params: wanted U1 and c1, got W, b"):
        hme_tree.check({"W": params["W"], "b": params["b"]}, x, y)
    params, x, y = random_tree((2, 2), None)
    with pytest.raises(InputError, match="y: wanted labels from 0 to 1, got 0 to 5"):
        hme_tree.check(params, x, np.where(y == 1, 5, y))
    with pytest.raises(InputError, match="y: wanted integer numbers"):
        hme_tree.check(params, x, y + 0.5)
    with pytest.raises(InputError, match="y: wanted shape"):
        hme_tree.check(params, x, y[:5])
    assert hme_tree.check(params, x, y.tolist())[2].dtype.kind == "i"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tree": (2, 0)}, r"tree\[1\]: wanted a whole number"),
        (
            {"tree": ()},
            r"tree: wanted numbers of branches, one per level, such as \(2, 2\); got \(\)",
        ),
        ({"tree": 4}, r"tree: wanted numbers of branches"),
        ({"rng": 0}, r"rng: wanted a numpy\.random\.Generator"),
        ({"var": -1.0}, "var: wanted a finite number above 0"),
        ({"init_range": "wide"}, "init_range: wanted a finite number of at least 0"),
        ({"covariance": "each"}, "covariance: wanted one of shared, expert, full, None"),
    ],
)
def test_a_bad_initialisation_is_named(change, words):
    defaults = {"rng": np.random.default_rng(0), "tree": (2,), "D": D, "C": C}
    with pytest.raises(InputError, match=words):
        hme.init(**{**defaults, **change})
