"""What the four estimators share: `fit` by EM, and what a fitted mixture of experts tells.

A mixture gives P(y | x) = Σ_i g_i(x) P(y | x, i); mixtures/em.py has the equations.

    here                 shape           meaning
    X                    (N, D)          inputs: array, list of rows or data frame
    y                    (N,) or (N, C)  numbers, or classes (N,)
    mixture_weights      (N, E)          g_i(x): the gating network's output, before y is known
    responsibilities     (N, E)          g_i P_i / Σ_j g_j P_j: the same after y is known
    expert_outputs       (N, E, ...)     mean of y, or class probabilities, of every expert

A subclass says what the targets are (`_read`, `_family`, `_encode`, `_decode`), and which mixture
is fitted (`search`, `arguments`; mixture_kinds.py).
"""

import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, ArrayND, ArrayNE, Rng
from moe_np.estimators import displays
from moe_np.estimators.cases import Cases, case_weights, distinct_cases, read_inputs
from moe_np.mixtures import em
from moe_np.mixtures.em_families import Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class MixtureEstimator(BaseEstimator):
    """A mixture of experts with scikit-learn's conventions; the base of the four estimators.

    After `fit` there are, besides n_features_in_ and feature_names_in_:

        fit_             the result of em.fit or hme_fit.fit (mixtures/), of the distinct cases
        params_          parameters of experts and gates, with the names of mixtures/em.py or hme.py
        log_likelihood_  Σ_n w_n log P(y_n | x_n) of the data of the fit, in nats
        n_iter_          the number of M steps of the run that was kept
        converged_       whether it has converged
    """

    restarts: int
    ridge: float
    tol: float
    max_iter: int
    warm_start: bool
    random_state: Any

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit by EM; a case with sample_weight 2 counts as two equal cases.

        With warm_start=True a second call goes on from the parameters of the first. Warns
        (scikit-learn's ConvergenceWarning) if EM was stopped by max_iter. Raises ValueError for bad
        data and settings.
        """
        # 1. Check the data.
        before = getattr(self, "fit_", None) if self.warm_start else None
        x, y = self._read(X, y)
        weight = case_weights(sample_weight, len(x))
        self._check_targets(y, weight)
        cases = distinct_cases(x, y, weight)
        # 2. Run EM.
        rng = generator(self.random_state)
        options = {"restarts": self.restarts, "tol": self.tol, "max_iter": self.max_iter}
        options |= {"ridge": self.ridge, "weight": cases.weight, "family": self._family()}
        options |= {"rng": rng, "initial": None if before is None else before.params}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", em.ConvergenceWarning)
            fit = self.search(cases, options)
        if not fit.converged:
            text = f"EM has not converged after max_iter={self.max_iter} steps"
            warnings.warn(text, ConvergenceWarning, stacklevel=2)
        # 3. Keep the result.
        self.fit_ = fit
        self.params_ = fit.params
        self.log_likelihood_ = fit.log_likelihood
        self.n_iter_ = len(fit.history) - 1
        self.converged_ = fit.converged
        return self

    def mixture_weights(self, X: Any) -> ArrayNE:
        """The gating network's output g_i(x): the weight of every expert, before y is known."""
        arguments = self.arguments(read_inputs(self, X))
        return self.fit_.gate(**arguments)

    def responsibilities(self, X: Any, y: Any) -> ArrayNE:
        """The posterior probability of every expert, given x and y."""
        x = read_inputs(self, X)
        return self.fit_.responsibilities(y=self._encode(y, len(x)), **self.arguments(x))

    def expert_outputs(self, X: Any) -> Array:
        """What every expert says: the mean of y, or the class probabilities; (N, E, ...)."""
        return self._outputs(read_inputs(self, X))

    def log_density(self, X: Any, y: Any) -> ArrayN:
        """log P(y | x) of every case, in nats; its mean over new cases is `scores.log_score`."""
        x = read_inputs(self, X)
        return self.fit_.log_density(y=self._encode(y, len(x)), **self.arguments(x))

    def sample(self, X: Any, *, random_state: Any = None) -> Array:
        """One y per case, drawn from P(y | x): an expert by the gate, then y from this expert."""
        arguments = self.arguments(read_inputs(self, X))
        y, _ = self.fit_.sample(rng=generator(random_state), **arguments)
        return self._decode(y)

    def bic(self) -> float:
        """Schwarz's criterion (BIC) of the data of the fit; smaller is better.

        −2 log likelihood + log N · parameters, N being the sum of the weights. It is meant for the
        maximum of the likelihood, so for a small ridge.
        """
        check_is_fitted(self)
        return float(self.fit_.bic())

    def aic(self) -> float:
        """Akaike's criterion (AIC) of the data of the fit; smaller is better."""
        check_is_fitted(self)
        return float(self.fit_.aic())

    def plot_experts(
        self, X: Any, y: Any = None, *, feature: int | str = 0, output: int = -1, ax: Any = None
    ) -> "Axes":
        """Draw every expert's output and the prediction along one feature; `displays.experts`."""
        return displays.experts(self, X, y, feature=feature, output=output, ax=ax)

    def plot_gate(
        self, X: Any, *, feature: int | str | tuple[int | str, int | str] = 0, ax: Any = None
    ) -> "Axes":
        """Draw the mixture weights along one feature, or over two; `displays.gate`."""
        return displays.gate(self, X, feature=feature, ax=ax)

    # --- for subclasses ---------------------------------------------------------------------------

    def _outputs(self, x) -> Array:
        return self.fit_.outputs(self.arguments(x)["x"])

    def search(self, cases: Cases, options: dict[str, Any]) -> Any:
        """The fit of the cases by EM."""
        raise NotImplementedError

    def arguments(self, x: ArrayND) -> dict[str, Any]:
        """The inputs by the names that the methods of `fit_` give them."""
        raise NotImplementedError

    def _read(self, X, y) -> tuple[ArrayND, Array]:
        raise NotImplementedError

    def _check_targets(self, y, weight):
        """Raise ValueError where the weights leave no case of a class."""

    def _family(self) -> Family:
        raise NotImplementedError

    def _encode(self, y, N) -> Array:
        raise NotImplementedError

    def _decode(self, y) -> Array:
        raise NotImplementedError


def generator(random_state: Any) -> Rng:
    """A numpy.random.Generator from what scikit-learn takes as a random_state, or a Generator."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    try:
        state = check_random_state(random_state)
    except ValueError as error:
        raise checks.InputError(f"random_state: {error}") from None
    return np.random.default_rng(state.randint(np.iinfo(np.int32).max))
