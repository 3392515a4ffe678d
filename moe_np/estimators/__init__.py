"""Estimators with scikit-learn's conventions in front of mixtures of experts and of trees.

An estimator is an object with `fit(X, y)` and `predict(X)`. These four are fitted by EM:

    MixtureOfExpertsRegressor       numbers, one gating network (mixtures/em.py)
    MixtureOfExpertsClassifier      classes, one gating network
    HierarchicalMixtureRegressor    numbers, a tree of gating networks (mixtures/hme_fit.py)
    HierarchicalMixtureClassifier   classes, a tree of gating networks

They take arrays, lists and data frames, can be cloned and pickled, and work in pipelines, in
cross-validation and in grid search; `log_score` is a scoring function that judges the whole
distribution.

scikit-learn, 1.6 or later, is the extra `estimators`: pip install "moe-np[estimators]".
"""

try:
    from sklearn.utils.validation import validate_data  # noqa: F401 - new in scikit-learn 1.6
except ImportError as error:
    raise ImportError(
        "moe_np.estimators needs scikit-learn 1.6 or later, the extra `estimators`: "
        'pip install "moe-np[estimators]"'
    ) from error

from moe_np.estimators.classifiers import (
    HierarchicalMixtureClassifier,
    MixtureOfExpertsClassifier,
)
from moe_np.estimators.distributions import PredictedClasses, PredictedDensity
from moe_np.estimators.regressors import HierarchicalMixtureRegressor, MixtureOfExpertsRegressor
from moe_np.estimators.scores import log_score

__all__ = [
    "HierarchicalMixtureClassifier",
    "HierarchicalMixtureRegressor",
    "MixtureOfExpertsClassifier",
    "MixtureOfExpertsRegressor",
    "PredictedClasses",
    "PredictedDensity",
    "log_score",
]
