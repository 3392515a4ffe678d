"""Predicted distributions: a mixture of Gaussians per case, or class probabilities per case.

    here     shape      meaning
    weight   (N, E)     mixture weights g_i(x_n)
    means    (N, E, C)  means of the experts
    var      (E, C, C)  covariance matrices of the experts
    proba    (N, E, C)  class probabilities of the experts

Quantities of a regressor have the shape of its targets, (N,) or (N, C); cdf, quantiles and
intervals are of each output alone.
"""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from moe_np.base import checks
from moe_np.base.numerics import logsumexp
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayNE, ArrayNEC

BISECTIONS = 80  # halvings of the interval of a quantile: its width falls below rounding


class PredictedDensity(NamedTuple):
    """P(y | x) = Σ_i g_i N(y; μ_i, Σ_i) of every case, as a regressor predicts it."""

    weight: ArrayNE
    means: ArrayNEC
    var: Annotated[np.ndarray, "E, C, C"]
    y_shape: tuple[int, ...]  # () or (C,): the shape of the target of one case

    def mean(self) -> Array:
        """Σ_i g_i μ_i."""
        return self._shaped(self._mean())

    def std(self) -> Array:
        """The standard deviation: the root of Σ_i g_i (σ_i² + (μ_i − mean)²)."""
        deviation = self.means - self._mean()[:, None]
        square = self._variances() + deviation**2
        return self._shaped(np.sqrt(np.einsum("ne,nec->nc", self.weight, square)))

    def log_density(self, y: Any) -> ArrayN:
        """log P(y | x) of one y per case, in nats."""
        y = self._targets(y)
        C = y.shape[1]
        root = np.linalg.cholesky(self.var)
        z = np.einsum("ecd,ned->nec", np.linalg.inv(root), y[:, None] - self.means)
        log_det = 2 * np.log(np.einsum("ecc->ec", root)).sum(axis=1)
        log_p = -0.5 * ((z**2).sum(axis=2) + log_det + C * math.log(2 * math.pi))
        with np.errstate(divide="ignore"):
            return logsumexp(np.log(self.weight) + log_p)

    def cdf(self, y: Any) -> Array:
        """P(Y ≤ y | x) of each output alone: Σ_i g_i Φ((y − μ_i) / σ_i)."""
        return self._shaped(self._cdf(self._targets(y)))

    def quantile(self, p: float) -> Array:
        """The y with P(Y ≤ y | x) = p of each output alone, 0 < p < 1, by bisection."""
        p = checks.number("p", p, greater_than=0, less_than=1)
        ends = self.means + ndtri(p) * np.sqrt(self._variances())
        low = ends.min(axis=1)  # the quantile of a mixture lies between those of its parts
        high = ends.max(axis=1)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            is_below = self._cdf(middle) < p
            low = np.where(is_below, middle, low)
            high = np.where(is_below, high, middle)
        return self._shaped(0.5 * (low + high))

    def interval(self, level: float = 0.9) -> tuple[Array, Array]:
        """(low, high): the central interval that holds y with this probability."""
        level = checks.number("level", level, greater_than=0, less_than=1)
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def _mean(self):
        return np.einsum("ne,nec->nc", self.weight, self.means)

    def _variances(self):
        return np.einsum("ecc->ec", self.var)

    def _cdf(self, y):
        z = (y[:, None] - self.means) / np.sqrt(self._variances())
        return np.einsum("ne,nec->nc", self.weight, ndtr(z))

    def _targets(self, y):
        y = checks.array("y", y, (len(self.weight), *self.y_shape))
        return y.reshape(len(y), -1)

    def _shaped(self, values):
        return values.reshape(len(values), *self.y_shape)


class PredictedClasses(NamedTuple):
    """P(class | x) = Σ_i g_i P_i(class | x) of every case, as a classifier predicts it."""

    weight: ArrayNE
    proba: ArrayNEC
    classes: Annotated[np.ndarray, "C"]

    def probabilities(self) -> ArrayNC:
        """Σ_i g_i P_i, in the order of `classes`."""
        total = np.einsum("ne,nec->nc", self.weight, self.proba)
        return total / total.sum(axis=1, keepdims=True)

    def entropy(self) -> ArrayN:
        """−Σ_c P log P: how uncertain the class of every case is, in nats."""
        return _entropy(self.probabilities())

    def disagreement(self) -> ArrayN:
        """The part of the entropy that comes from the experts' differing from each other, in nats.

        The mutual information of class and expert: entropy − Σ_i g_i entropy of expert i.
        """
        of_experts = (self.weight * _entropy(self.proba)).sum(axis=1)
        return np.maximum(self.entropy() - of_experts, 0)


def _entropy(p):
    """−Σ p log p over the last axis, with 0 log 0 = 0."""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1)
