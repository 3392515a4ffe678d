"""Regressors: several outputs, distributions, features of gate and experts, R's examples."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from moe_np.base.checks import InputError
from moe_np.estimators import HierarchicalMixtureRegressor, MixtureOfExpertsRegressor
from tests.mixtures.test_em_reference import compare
from tests.support.mixtures import random_data

BOTH = (MixtureOfExpertsRegressor, HierarchicalMixtureRegressor)
both = pytest.mark.parametrize("cls", BOTH)


@both
@pytest.mark.parametrize("covariance", ["fixed", "shared", "expert", "full"])
def test_several_outputs(cls, covariance):
    x, y = random_data("full")
    options = {"covariance": covariance, "variance": 0.3, "restarts": 1, "random_state": 0}
    model = cls(**options, tol=1e-3).fit(x, y)
    distribution = model.predict_distribution(x)
    assert model.predict(x).shape == distribution.std().shape == y.shape
    np.testing.assert_allclose(distribution.mean(), model.predict(x))
    np.testing.assert_allclose(distribution.log_density(y), model.log_density(x, y))
    assert model.expert_outputs(x).shape == (60, len(model.params_["W"]), 2)
    assert model.sample(x, random_state=0).shape == y.shape


@both
def test_one_output_as_a_column_stays_a_column(cls):
    x, y = random_data("full")
    options = {"restarts": 1, "random_state": 0, "tol": 1e-3}
    column = cls(**options).fit(x, y[:, :1])
    flat = cls(**options).fit(x, y[:, 0])
    assert column.predict(x).shape == (60, 1) and flat.predict(x).shape == (60,)
    np.testing.assert_array_equal(column.predict(x)[:, 0], flat.predict(x))
    with pytest.raises(InputError, match=r"y: wanted shape \(60,\), got \(60, 1\)"):
        flat.log_density(x, y[:, :1])


def test_intervals_hold_their_share_of_new_cases():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (800, 1))
    y = np.abs(x[:, 0]) + np.where(x[:, 0] > 0, 0.5, 0.05) * rng.normal(size=800)
    model = MixtureOfExpertsRegressor(2, restarts=3, random_state=0).fit(x[:400], y[:400])
    low, high = model.predict_distribution(x[400:]).interval(0.9)
    assert np.mean((low < y[400:]) & (y[400:] < high)) == pytest.approx(0.9, abs=0.04)
    assert np.median((high - low)[x[400:, 0] > 0.5]) > 5 * np.median(
        (high - low)[x[400:, 0] < -0.5]
    )


@pytest.mark.parametrize("task", compare.tasks(), ids=lambda task: task["name"])
@pytest.mark.slow
def test_at_least_as_likely_as_r(task):
    """The examples of R's flexmix and mixtools by the estimators, with default settings."""
    from moe_np.estimators import MixtureOfExpertsClassifier

    x, y, E, _ = compare.load({**task, "tool": ""})
    options = {"random_state": 0, "ridge": 0.0, "tol": 1e-8, "max_iter": 3000, "restarts": 20}
    options["gate_features"] = None if task["gate"] == "x" else []
    options["expert_features"] = [] if task["tool"] == "mvnorm" else None
    if task["family"] == "categorical":
        model = MixtureOfExpertsClassifier(E, **options)
    else:
        model = MixtureOfExpertsRegressor(E, covariance=task["covariance"], **options)
    model.fit(x, y)
    values = compare.reference()["tasks"][task["name"]]["log_likelihoods"]
    best = max(value for value in values if value is not None)
    assert model.log_likelihood_ >= best - 1e-6 * abs(best)
