"""Classifiers: MixtureOfExpertsClassifier and HierarchicalMixtureClassifier.

Experts are multinomial logistic regressions. One of them divides the space of inputs by straight
borders; the gating network lets every expert do so in a part of the space.
"""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayNC
from moe_np.estimators.cases import read_inputs
from moe_np.estimators.distributions import PredictedClasses
from moe_np.estimators.mixture_estimator import MixtureEstimator
from moe_np.estimators.mixture_kinds import GateTree, OneGate
from moe_np.mixtures.em_families import Categorical


class MixtureClassifier(ClassifierMixin, MixtureEstimator):
    """What both classifiers share: targets that are classes, listed in `classes_` after `fit`."""

    def predict(self, X: Any) -> ArrayN:
        """The most probable class of every case."""
        label = self.predict_proba(X).argmax(axis=1)
        return self.classes_[label]

    def predict_proba(self, X: Any) -> ArrayNC:
        """The class probabilities Σ_i g_i P_i, in the order of `classes_`."""
        return self.predict_distribution(X).probabilities()

    def predict_distribution(self, X: Any) -> PredictedClasses:
        """The class probabilities with those of every expert: entropy, disagreement, ..."""
        x = read_inputs(self, X)
        weight = self.fit_.gate(**self.arguments(x))
        return PredictedClasses(weight, self._outputs(x), self.classes_)

    def _read(self, X, y):
        X, y = validate_data(self, X, y, dtype=np.float64, order="C")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        classes, label = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise checks.InputError(
                f"y: wanted at least two classes, got one class: {classes[0].item()!r}"
            )
        if self.warm_start and hasattr(self, "fit_") and list(classes) != list(self.classes_):
            raise checks.InputError(
                f"warm_start: wanted the classes of the fit before, {checks.text(self.classes_)}, "
                f"got {checks.text(classes)}"
            )
        self.classes_ = classes
        return np.asarray(X), label

    def _check_targets(self, y, weight):
        empty = np.bincount(y, weights=weight) == 0
        if empty.any():
            raise checks.InputError(
                "sample_weight: wanted samples with a weight above 0 in every class, got none in "
                f"class {self.classes_[empty][0].item()!r}"
            )

    def _family(self):
        return Categorical(len(self.classes_))

    def _encode(self, y, N):
        """Numbers of classes."""
        y = column_or_1d(y)
        if len(y) != N:
            raise checks.InputError(f"y: wanted {N} classes, as X has rows, got {len(y)}")
        known = np.isin(y, self.classes_)
        if not known.all():
            raise checks.InputError(
                f"y: wanted classes that `fit` has seen, got {y[~known][0].item()!r}"
            )
        return np.searchsorted(self.classes_, y)

    def _decode(self, y):
        """Classes from their numbers."""
        return self.classes_[y]


class MixtureOfExpertsClassifier(OneGate, MixtureClassifier):
    """A mixture of multinomial logistic regressions with one gating network, fitted by EM.

    n_experts        the number of experts
    ridge            penalty ½ ridge ‖slopes‖² of gate and experts (weight decay); with 0 the slopes
                     grow without bound where classes can be separated
    gate_features    columns of X that the gate sees: numbers, names or a mask; None all, [] none
    expert_features  the same for the experts
    restarts         random initialisations; a third of the runs is continued to the end
    tol, max_iter    a run ends when less than tol nats per case are still to come, or after
                     max_iter M steps
    warm_start       whether a second call of `fit` goes on from the first
    random_state     for the initialisations: None, a whole number, a RandomState or a Generator
    """

    def __init__(
        self,
        n_experts=2,
        *,
        ridge=0.1,
        gate_features=None,
        expert_features=None,
        restarts=10,
        tol=1e-4,
        max_iter=1000,
        warm_start=False,
        random_state=None,
    ):
        self.n_experts = n_experts
        self.ridge = ridge
        self.gate_features = gate_features
        self.expert_features = expert_features
        self.restarts = restarts
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state


class HierarchicalMixtureClassifier(GateTree, MixtureClassifier):
    """A hierarchical mixture of experts (HME): a tree of gates above logistic regressions, by EM.

    tree             branches of a gate on each level: (2, 2) is a binary tree with 4 experts
    ridge            penalty ½ ridge ‖slopes‖² of gates and experts (weight decay)

    The other parameters are those of MixtureOfExpertsClassifier.
    """

    def __init__(
        self,
        tree=(2, 2),
        *,
        ridge=0.1,
        restarts=10,
        tol=1e-4,
        max_iter=1000,
        warm_start=False,
        random_state=None,
    ):
        self.tree = tree
        self.ridge = ridge
        self.restarts = restarts
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state
