"""The methods of the health experiment: estimators, and the values that cross-validation tries.

    mixture                   moe_np.estimators, two or three linear experts, by EM
    hierarchical mixture      moe_np.estimators, a binary tree with four linear experts, by EM
    linear                    logistic regression, or ridge regression: one expert
    neural network            one hidden layer with as many parameters as a mixture of two experts
    gradient boosting         trees

In a mixture by EM every expert is computed for every case, so that equal size is equal operations.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayND
from moe_np.experiments.common import extras

CANCER = "breast cancer"
DIABETES = "diabetes"
DATA = (CANCER, DIABETES)
MIXTURE = "mixture"
TREE = "hierarchical mixture"
LINEAR = "linear"
NETWORK = "neural network"
BOOSTING = "gradient boosting"
METHODS = (MIXTURE, TREE, LINEAR, NETWORK, BOOSTING)
INNER = 3  # folds of the choice


def table(name: str) -> tuple[ArrayND, ArrayN]:
    """Inputs (N, D) and targets (N,) of one of DATA; without scikit-learn an InputError.

    Breast cancer: 569 cases, 30 measures of cell nuclei (Street et al. 1993); 1 is malignant.
    Diabetes: 442 cases, 10 measures, the progression after a year in standard deviations (Efron
    et al. 2004).
    """
    checks.choice("name", name, DATA)
    extras.require("sklearn", "estimators")
    from sklearn import datasets

    if name == CANCER:
        x, y = datasets.load_breast_cancer(return_X_y=True)
        return x, 1 - y
    x, y = datasets.load_diabetes(return_X_y=True)
    return x, (y - y.mean()) / y.std()


def estimator(data: str, method: str, seed: int, em: Mapping[str, Any]) -> tuple[Any, Mapping]:
    """(estimator, {parameter: values to try}) of a method, inputs standardised.

    em   options of the mixtures: restarts and max_iter
    """
    checks.choice("method", method, METHODS)
    extras.require("sklearn", "estimators")
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    make = _classifier if data == CANCER else _regressor
    model, grid = make(method, seed, {**em, "random_state": seed})
    named = {f"model__{name}": values for name, values in grid.items()}
    return Pipeline([("scale", StandardScaler()), ("model", model)]), named


def _classifier(method, seed, options):
    from sklearn import ensemble, linear_model, neural_network

    from moe_np.estimators import HierarchicalMixtureClassifier, MixtureOfExpertsClassifier

    ridge = {"ridge": (0.3, 1.0, 3.0, 10.0)}
    if method == MIXTURE:
        return MixtureOfExpertsClassifier(2, **options), {"n_experts": (2, 3), **ridge}
    if method == TREE:
        return HierarchicalMixtureClassifier((2, 2), **options), ridge
    if method == LINEAR:
        return linear_model.LogisticRegression(max_iter=2000), {"C": (0.03, 0.1, 0.3, 1.0, 3.0)}
    if method == NETWORK:
        return neural_network.MLPClassifier(**network(seed)), {"alpha": (0.1, 1.0, 10.0)}
    trees = ensemble.GradientBoostingClassifier(random_state=seed, subsample=0.8)
    return trees, {"n_estimators": (50, 100, 200), "max_depth": (1, 2, 3)}


def _regressor(method, seed, options):
    from sklearn import ensemble, linear_model, neural_network

    from moe_np.estimators import HierarchicalMixtureRegressor, MixtureOfExpertsRegressor

    ridge = {"ridge": (1.0, 10.0, 30.0, 100.0)}
    if method == MIXTURE:
        return MixtureOfExpertsRegressor(2, **options), {"n_experts": (2, 3), **ridge}
    if method == TREE:
        return HierarchicalMixtureRegressor((2, 2), **options), ridge
    if method == LINEAR:
        return linear_model.Ridge(), {"alpha": (1.0, 10.0, 30.0, 100.0, 300.0)}
    if method == NETWORK:
        return neural_network.MLPRegressor(**network(seed)), {"alpha": (0.1, 1.0, 10.0, 100.0)}
    trees = ensemble.GradientBoostingRegressor(random_state=seed, subsample=0.8)
    return trees, {"n_estimators": (30, 60, 120), "max_depth": (1, 2, 3), "learning_rate": (0.05,)}


def network(seed: int) -> dict[str, Any]:
    """Three hidden units of D + 1 numbers each: as many as two linear experts and their gate."""
    sizes = {"hidden_layer_sizes": (3,), "solver": "lbfgs", "max_iter": 500}
    return {**sizes, "random_state": seed}


def parameters(model: Any) -> int | None:
    """The free numbers that a fitted model has learnt; None for trees."""
    if hasattr(model, "fit_"):
        return int(model.fit_.n_parameters())
    if hasattr(model, "coefs_"):
        return int(sum(np.size(w) for w in (*model.coefs_, *model.intercepts_)))
    if hasattr(model, "coef_"):
        return int(np.size(model.coef_) + np.size(model.intercept_))
    return None
