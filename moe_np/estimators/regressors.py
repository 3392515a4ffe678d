"""Regressors: MixtureOfExpertsRegressor and HierarchicalMixtureRegressor.

Experts are linear regressions with Gaussian noise, so P(y | x) is a mixture of Gaussians: it can
have several modes, and a width that depends on x.
"""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from moe_np.base import checks
from moe_np.base.types import Array
from moe_np.estimators.cases import read_inputs
from moe_np.estimators.distributions import PredictedDensity
from moe_np.estimators.mixture_estimator import MixtureEstimator
from moe_np.estimators.mixture_kinds import GateTree, OneGate
from moe_np.mixtures.em_families import Gaussian


class MixtureRegressor(RegressorMixin, MixtureEstimator):
    """What both regressors share: targets that are numbers, (N,) or (N, C)."""

    covariance: str
    variance: float

    def predict(self, X: Any) -> Array:
        """The mean Σ_i g_i (x W_i + b_i) of y, with the shape of the targets of the fit."""
        x = read_inputs(self, X)
        weight = self.fit_.gate(**self.arguments(x))
        outputs = self.fit_.outputs(self.arguments(x)["x"])
        return self._decode(np.einsum("ne,nec->nc", weight, outputs))

    def predict_distribution(self, X: Any) -> PredictedDensity:
        """The whole distribution P(y | x) of every case: density, quantiles, intervals, ..."""
        x = read_inputs(self, X)
        weight = self.fit_.gate(**self.arguments(x))
        means = self.fit_.outputs(self.arguments(x)["x"])
        E, C = means.shape[1:]
        var = self.params_["var"]
        if var.ndim < 3:
            var = np.broadcast_to(var, E)[:, None, None] * np.eye(C)
        return PredictedDensity(weight, means, var, self.y_shape_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _read(self, X, y):
        options = {"dtype": np.float64, "order": "C", "multi_output": True, "y_numeric": True}
        X, y = validate_data(self, X, y, ensure_min_samples=2, **options)
        y = np.asarray(y)
        self.y_shape_ = y.shape[1:]
        return np.asarray(X), y.reshape(len(y), -1).astype(np.float64)

    def _family(self):
        return Gaussian(self.covariance, self.variance)

    def _encode(self, y, N):
        """Targets (N, C)."""
        y = checks.array("y", y, (N, *self.y_shape_))
        return y.reshape(N, -1)

    def _decode(self, y):
        """From (N, C) to the shape of the targets of the fit."""
        return y.reshape(len(y), *self.y_shape_)

    def _outputs(self, x):
        outputs = super()._outputs(x)
        return outputs.reshape(*outputs.shape[:2], *self.y_shape_)


class MixtureOfExpertsRegressor(OneGate, MixtureRegressor):
    """A mixture of linear regressions with one gating network, fitted by EM.

    n_experts        the number of experts
    covariance       "shared" one variance, "expert" one per expert, "full" one covariance matrix
                     per expert, "fixed" the number `variance` for all
    ridge            penalty ½ ridge ‖slopes‖² of gate and experts (weight decay)
    gate_features    columns of X that the gate sees: numbers, names or a mask; None all, [] none
                     (constant mixture weights: a mixture of regressions)
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
        covariance="expert",
        variance=1.0,
        ridge=0.0,
        gate_features=None,
        expert_features=None,
        restarts=20,
        tol=1e-6,
        max_iter=1000,
        warm_start=False,
        random_state=None,
    ):
        self.n_experts = n_experts
        self.covariance = covariance
        self.variance = variance
        self.ridge = ridge
        self.gate_features = gate_features
        self.expert_features = expert_features
        self.restarts = restarts
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state


class HierarchicalMixtureRegressor(GateTree, MixtureRegressor):
    """A hierarchical mixture of experts (HME): a tree of gates above linear regressions, by EM.

    tree             branches of a gate on each level: (2, 2) is a binary tree with 4 experts
    covariance       "shared" one variance, "expert" one per expert, "full" one covariance matrix
                     per expert, "fixed" the number `variance` for all
    ridge            penalty ½ ridge ‖slopes‖² of gates and experts (weight decay)

    The other parameters are those of MixtureOfExpertsRegressor.
    """

    def __init__(
        self,
        tree=(2, 2),
        *,
        covariance="expert",
        variance=1.0,
        ridge=0.0,
        restarts=20,
        tol=1e-6,
        max_iter=1000,
        warm_start=False,
        random_state=None,
    ):
        self.tree = tree
        self.covariance = covariance
        self.variance = variance
        self.ridge = ridge
        self.restarts = restarts
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state
