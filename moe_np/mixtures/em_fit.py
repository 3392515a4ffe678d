"""A fitted mixture of experts: predictions, responsibilities, scores and samples.

`moe_np.mixtures.em.fit` returns a `Fit`; the names of the parameters are those of em.py.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import log_softmax, logsumexp, softmax
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, ArrayNE, ArrayNEC, Params, Rng
from moe_np.mixtures.em_families import Categorical, Family, draw_category
from moe_np.mixtures.least_squares import Design, make_design


class Fit(NamedTuple):
    """The result of `em.fit`. If `em.fit` was given `gate_x`, the methods need it too."""

    params: Params  # W, b (and var) of the experts, U and c of the gate
    log_likelihood: float  # Σ_n log P(y_n | x_n), without the ridge penalty
    history: Array  # (T,) log likelihood − penalty, before each M step and at the end
    resp: ArrayNE
    converged: bool
    family: Family  # with the settings that depend on the data filled in
    weight: ArrayN | None = None  # of the cases, as `em.fit` was given it

    def gate(self, x: ArrayND, gate_x: Array | None = None) -> ArrayNE:
        """The gating network's output g_i(x): the mixture weights, before y is known."""
        return softmax(gate_logits(self.params, self._designs(x, gate_x)[1]))

    def outputs(self, x: ArrayND) -> ArrayNEC:
        """The mean, or the class probabilities, of every expert."""
        x = checks.array("x", x, ("N", self.params["W"].shape[1]))
        return self.family.outputs(self.params, make_design(x))

    def predict_proba(self, x: ArrayND, gate_x: Array | None = None) -> ArrayNC:
        """The class probabilities Σ_i g_i P_i. Raises InputError for Gaussian experts."""
        if not isinstance(self.family, Categorical):
            raise checks.InputError(
                "predict_proba: wanted categorical experts; Gaussian experts have no classes"
            )
        return self._mean(x, gate_x)

    def predict(self, x: ArrayND, gate_x: Array | None = None) -> ArrayNC | ArrayN:
        """The mean Σ_i g_i (x W_i + b_i), (N, C); for labels the most probable class, (N,)."""
        mean = self._mean(x, gate_x)
        return mean.argmax(axis=1) if isinstance(self.family, Categorical) else mean

    def responsibilities(
        self, x: ArrayND, y: ArrayNC | ArrayN, gate_x: Array | None = None
    ) -> ArrayNE:
        """h_i = g_i P_i / Σ_j g_j P_j: the posterior probability of each expert, given y."""
        return softmax(self._log_joint(x, y, gate_x))

    def log_density(self, x: ArrayND, y: ArrayNC | ArrayN, gate_x: Array | None = None) -> ArrayN:
        """log P(y_n | x_n) of every case, in nats."""
        return logsumexp(self._log_joint(x, y, gate_x))

    def score(self, x: ArrayND, y: ArrayNC | ArrayN, gate_x: Array | None = None) -> float:
        """The mean over the cases of log P(y | x), in nats per case."""
        x = checks.array("x", x, ("N", "D"))
        if not len(x):
            raise checks.InputError("x: wanted at least one case, got none")
        return float(self.log_density(x, y, gate_x).mean())

    def sample(
        self, x: ArrayND, rng: Rng, gate_x: Array | None = None
    ) -> tuple[ArrayNC | ArrayN, ArrayN]:
        """Draw an expert with the gate's probabilities, then y from it: (y, expert (N,))."""
        inputs, gate_inputs = self._designs(x, gate_x)
        probs = softmax(gate_logits(self.params, gate_inputs))
        expert = draw_category(probs, checks.generator("rng", rng))
        outputs = self.family.outputs(self.params, inputs)[np.arange(len(expert)), expert]
        return self.family.draw(self.params, expert, outputs, rng), expert

    def n_parameters(self) -> int:
        """The number of free parameters: (Dg + 1)(E − 1) of the gate, and those of the experts."""
        Dg, E = self.params["U"].shape
        return (Dg + 1) * (E - 1) + self.family.n_parameters(self.params)

    def bic(self) -> float:
        """The Bayesian information criterion (BIC; Schwarz 1978); smaller is better.

        −2 log likelihood + log N · parameters, N being the sum of the weights.
        """
        n_cases = len(self.resp) if self.weight is None else self.weight.sum()
        return -2 * self.log_likelihood + np.log(n_cases) * self.n_parameters()

    def aic(self) -> float:
        """Akaike's criterion −2 log likelihood + 2 · parameters; smaller is better."""
        return -2 * self.log_likelihood + 2 * self.n_parameters()

    def _designs(self, x, gate_x):
        x = checks.array("x", x, ("N", self.params["W"].shape[1]))
        inputs = make_design(x)
        name = "x" if gate_x is None else "gate_x"
        gate_shape = (len(x), len(self.params["U"]))
        gate_x = checks.array(name, x if gate_x is None else gate_x, gate_shape)
        return inputs, inputs if gate_x is x else make_design(gate_x)

    def _mean(self, x, gate_x):
        inputs, gate_inputs = self._designs(x, gate_x)
        weight = softmax(gate_logits(self.params, gate_inputs))
        return np.einsum("ne,nec->nc", weight, self.family.outputs(self.params, inputs))

    def _log_joint(self, x, y, gate_x):
        """log g_i P_i, (N, E)."""
        inputs, gate_inputs = self._designs(x, gate_x)
        _, y = self.family.resolve(y)
        wanted = (inputs.xt.shape[1], self.params["b"].shape[1])[: y.ndim]
        if y.shape != wanted:
            raise checks.InputError(f"y: wanted shape {wanted}, got {y.shape}")
        log_gate = log_softmax(gate_logits(self.params, gate_inputs))
        with np.errstate(over="ignore"):
            joint = log_gate + self.family.log_density(self.params, inputs, y)
        if not np.isfinite(joint.max(axis=1)).all():
            raise checks.InputError(
                "y: wanted cases with a density above 0, got one that is infinitely far from every "
                "expert"
            )
        return joint


def gate_logits(params: Params, design: Design) -> ArrayNE:
    """The logits x U + c of the gating network."""
    centre = params["c"] + design.mean @ params["U"]  # the design is about the mean of x
    return (params["U"].T @ design.xt[:-1] + centre[:, None]).T
