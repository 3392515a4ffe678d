"""scikit-learn's own checks of an estimator: all of them, for all four estimators.

With one initialisation they take seconds; as the estimators come they are slow.
"""

import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.utils.estimator_checks import parametrize_with_checks

from moe_np import estimators

CLASSES = (
    estimators.MixtureOfExpertsRegressor,
    estimators.MixtureOfExpertsClassifier,
    estimators.HierarchicalMixtureRegressor,
    estimators.HierarchicalMixtureClassifier,
)


@parametrize_with_checks([cls(restarts=1, tol=1e-3) for cls in CLASSES])
def test_checks_of_sklearn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([cls() for cls in CLASSES])
def test_checks_of_sklearn_with_the_settings_as_they_come(estimator, check):
    check(estimator)
