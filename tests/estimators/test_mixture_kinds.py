"""Which columns gate and experts see, and what a fit may be continued with."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from moe_np.base.checks import InputError
from moe_np.estimators import HierarchicalMixtureRegressor, MixtureOfExpertsRegressor
from moe_np.estimators.mixture_kinds import columns


def test_features_of_gate_and_experts():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pandas.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"])
    y = np.where(X["a"] > 0, 2, -1) * X["b"] + 0.1 * rng.normal(size=200)
    options = {"restarts": 3, "random_state": 0}
    named = MixtureOfExpertsRegressor(2, gate_features=["a"], expert_features=["b", "c"], **options)
    named.fit(X, y)
    assert named.params_["U"].shape == (1, 2) and named.params_["W"].shape == (2, 2, 1)
    assert named.score(X, y) > 0.95
    mask = MixtureOfExpertsRegressor(
        2, gate_features=[0], expert_features=[False, True, True], **options
    )
    np.testing.assert_array_equal(mask.fit(X.values, y).predict(X.values), named.predict(X))
    constant = MixtureOfExpertsRegressor(2, gate_features=[], **options).fit(X, y)
    assert np.ptp(constant.mixture_weights(X), axis=0).max() < 1e-12
    for wrong in (["d"], [3], "a b", [[0]], [0.5]):
        with pytest.raises(InputError, match="gate_features: wanted numbers below 3 or names"):
            named.set_params(gate_features=wrong).fit(X, y)


def test_columns_keep_the_order_of_the_list():
    x = np.arange(6.0).reshape(2, 3)
    model = MixtureOfExpertsRegressor(gate_features=[2, -3])
    np.testing.assert_array_equal(columns(model, "gate_features", x), [[2, 0], [5, 3]])
    assert columns(model, "expert_features", x) is x


@pytest.mark.parametrize("tree", [(), 2, "22", (2, 0)])
def test_a_tree_is_checked(tree):
    x = np.arange(6.0)[:, None]
    with pytest.raises(InputError, match="tree"):
        HierarchicalMixtureRegressor(tree).fit(x, x[:, 0])
