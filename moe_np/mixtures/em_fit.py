"""A fitted mixture of experts and what one asks of it; `moe_np.mixtures.em` makes it, and its names
are used here.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import log_softmax, logsumexp, softmax
from moe_np.mixtures import irls
from moe_np.mixtures.em_families import Categorical, choose


class Fit(NamedTuple):
    """The result of `em.fit`. `gate_x` has to be given to its methods if it was given to `em.fit`."""

    params: dict  # W, b (and var) of the experts, U and c of the gate
    log_likelihood: float  # Σ_n log P(y_n | x_n), without the penalty of a ridge
    # (T,) what EM climbs, before each of its M steps and at the end: log likelihood − penalty
    history: np.ndarray
    resp: np.ndarray  # (N, E)
    converged: bool
    family: NamedTuple  # with what depended on the data filled in

    def gate(self, x, gate_x=None):
        """g (N, E): how likely each expert is to answer, y not being known."""
        return softmax(gate_logits(self.params, self._designs(x, gate_x)[1]))

    def predict_proba(self, x, gate_x=None):
        """Probabilities of the classes, Σ_i g_i P_i: (N, C)."""
        if not isinstance(self.family, Categorical):
            raise checks.InputError(
                "predict_proba: wanted categorical experts; Gaussian ones have no classes"
            )
        return self._mean(x, gate_x)

    def predict(self, x, gate_x=None):
        """The mean Σ_i g_i (x W_i + b_i), (N, C); for labels the most probable one, (N,)."""
        mean = self._mean(x, gate_x)
        return mean.argmax(axis=1) if isinstance(self.family, Categorical) else mean

    def responsibilities(self, x, y, gate_x=None):
        """(N, E): how likely each expert is to have answered, y being known."""
        return softmax(self._log_joint(x, y, gate_x))

    def score(self, x, y, gate_x=None):
        """The mean over cases of log P(y | x)."""
        if not len(x):
            raise checks.InputError("x: wanted at least one case, got none")
        return float(logsumexp(self._log_joint(x, y, gate_x)).mean())

    def sample(self, x, rng, gate_x=None):
        """One y for each x: an expert drawn with the gate's probabilities, then a y from it. -> (y,
        expert (N,)).
        """
        inputs, gate = self._designs(x, gate_x)
        expert = choose(softmax(gate_logits(self.params, gate)), checks.generator("rng", rng))
        own = self.family.outputs(self.params, inputs)[np.arange(len(expert)), expert]
        return self.family.draw(self.params, expert, own, rng), expert

    def n_parameters(self):
        """How many numbers can vary freely: (Dg + 1)(E − 1) of the gate, and the experts'."""
        Dg, E = self.params["U"].shape
        return (Dg + 1) * (E - 1) + self.family.n_parameters(self.params)

    def bic(self):
        """Schwarz's criterion, −2 log likelihood + log N · parameters: the smaller the better."""
        return -2 * self.log_likelihood + np.log(len(self.resp)) * self.n_parameters()

    def _designs(self, x, gate_x):
        x = checks.array("x", x, ("N", self.params["W"].shape[1]))
        gate_x = checks.array(
            "x" if gate_x is None else "gate_x",
            x if gate_x is None else gate_x,
            (len(x), len(self.params["U"])),
        )
        inputs = irls.design(x)
        return inputs, inputs if gate_x is x else irls.design(gate_x)

    def _mean(self, x, gate_x):
        inputs, gate = self._designs(x, gate_x)
        return np.einsum(
            "ne,nec->nc",
            softmax(gate_logits(self.params, gate)),
            self.family.outputs(self.params, inputs),
        )

    def _log_joint(self, x, y, gate_x):
        inputs, gate = self._designs(x, gate_x)
        _, y = self.family.resolve(y)
        wanted = (inputs.xt.shape[1], self.params["b"].shape[1])[: y.ndim]
        if y.shape != wanted:
            raise checks.InputError(f"y: wanted shape {wanted}, got {y.shape}")
        return log_softmax(gate_logits(self.params, gate)) + self.family.log_density(
            self.params, inputs, y
        )


def gate_logits(params, design):
    """x U + c, (N, E)."""
    centre = params["c"] + design.mean @ params["U"]
    return (params["U"].T @ design.xt[:-1] + centre[:, None]).T
