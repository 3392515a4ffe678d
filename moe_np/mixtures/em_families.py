"""The families of experts that EM trains: Gaussian for numbers, categorical for class labels.

A family holds its settings and does what EM needs of an expert:

    resolve(y, weight)                -> (family, y)  checked; settings filled in from the data
    log_density(params, design, y)    -> (N, E)       log P(y_n | x_n, expert e)
    m_step(params, design, y, resp, ridge, steps)
                                      -> params       one regression per expert, weights resp
    penalty(params, ridge)            -> number       ½ ridge ‖slopes‖² (weight decay)
    pool_variance(params, resp)       -> params       the same variance for every expert
    outputs(params, design)           -> (N, E, C)    means, or class probabilities
    draw(params, expert, outputs, rng)
                                      -> y            one y per case, from its expert's output
    gradient(params, design, y, resp) -> grads        of Σ_n log Σ_e g_e P(y_n | x_n, e)
    n_parameters(params)              -> int          how many parameters are free

    here      shape                    meaning
    W, b      (E, D, C), (E, C)        slopes and constants of x W_e + b_e: means, or logits
    var       (), (E,) or (E, C, C)    one variance for all experts, one per expert, or one
                                       covariance matrix per expert
    design                             the inputs, as `least_squares.make_design(x)` prepares them
    resp      (N, E)                   responsibilities

Arrays (N, E) have the cases contiguous in memory, which makes sums over the experts fast.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, ArrayE, ArrayN, ArrayNC, ArrayNE, ArrayNEC, Params, Rng
from moe_np.mixtures.affine import affine, affine_backward, pack, unpack
from moe_np.mixtures.irls import multinomial_irls
from moe_np.mixtures.least_squares import (
    Design,
    check_magnitude,
    is_constant,
    weighted_least_squares,
    weighted_variance,
)

COVARIANCES = ("fixed", "shared", "expert", "full")
NEGLIGIBLE = 1e-16  # an expert with less weight than this has no case: its variance is rounding


class Gaussian(NamedTuple):
    """y ~ N(x W_e + b_e, Σ_e), y (N, C).

    covariance  "fixed"   Σ = variance · I for all experts
                "shared"  σ² I, one learned σ² for all experts
                "expert"  σ_e² I, one learned σ_e² per expert
                "full"    one learned covariance matrix per expert
    variance    used by "fixed"
    floor       lower bound of variances (of the eigenvalues of Σ_e); None is 1e-6 of the variance
                of y, averaged over the outputs. With "full" it is 1e-6 of the variance of each
                output: Σ_e is nowhere below the diagonal matrix of these, so that the unit of an
                output does not matter
    """

    covariance: str = "expert"
    variance: float = 1.0
    floor: float | tuple[float, ...] | None = None

    def resolve(self, y: ArrayNC, weight: ArrayN | None = None) -> tuple["Gaussian", ArrayNC]:
        """(family with its floor, y in float64). Raises InputError for bad settings or y."""
        checks.choice("covariance", self.covariance, COVARIANCES)
        y = checks.array("y", y, ("N", "C")).astype(np.float64)
        if not y.shape[1]:
            raise checks.InputError(f"y: wanted at least one output, got shape {y.shape}")
        checks.number("variance", self.variance, greater_than=0)
        check_magnitude("y", y)
        return self._replace(floor=self._floor(y, weight)), y

    def _floor(self, y, weight):
        """A number, or a tuple of one per output."""
        if isinstance(self.floor, tuple):
            checks.array("floor", self.floor, (y.shape[1],))
            return tuple(checks.number("floor", value, greater_than=0) for value in self.floor)
        if self.floor is not None:
            return checks.number("floor", self.floor, greater_than=0)
        variance = weighted_variance(y, weight)
        variance[is_constant(y)] = 0  # what is left of it is rounding
        if self.covariance != "full" or len(variance) == 1:
            return 1e-6 * float(variance.mean() or 1.0)
        size = np.abs(y).max(axis=0, initial=0)
        instead = np.where(size > 1e-150, size, 1) ** 2  # an output that is constant
        return tuple((1e-6 * np.where(variance > 0, variance, instead)).tolist())

    @one_blas_thread()
    def log_density(self, params: Params, design: Design, y: ArrayNC) -> ArrayNE:
        """−½ (y − μ_e)ᵀ Σ_e⁻¹ (y − μ_e) − ½ log det 2π Σ_e."""
        residual = _residual(params, design, y)
        var = params["var"]
        E, C, _ = residual.shape
        if var.ndim == 3:
            root = np.linalg.cholesky(var)
            residual = np.linalg.inv(root) @ residual
            log_det = 2 * np.log(np.einsum("ecc->ec", root)).sum(axis=1)
            distance = np.einsum("ecn,ecn->en", residual, residual)
        else:
            var = np.broadcast_to(var, E)
            log_det = C * np.log(var)
            distance = np.einsum("ecn,ecn->en", residual, residual) / var[:, None]
        return (-0.5 * (distance + (log_det + C * math.log(2 * math.pi))[:, None])).T

    def gradient(self, params: Params, design: Design, y: ArrayNC, resp: ArrayNE) -> Params:
        """dμ_e = resp_e Σ_e⁻¹ r and dΣ_e = ½ Σ_n resp_e (Σ_e⁻¹ r rᵀ Σ_e⁻¹ − Σ_e⁻¹), r = y − μ_e."""
        var = params["var"]
        residual = y.T - affine(params, design)
        E, C, _ = residual.shape
        weight = resp.T
        n = resp.sum(axis=0)
        if var.ndim == 3:
            inverse = np.linalg.inv(var)
            pull = inverse @ residual
            scatter = (weight[:, None] * pull) @ pull.swapaxes(1, 2)
            dvar = 0.5 * (scatter - n[:, None, None] * inverse)
            return {**affine_backward(weight[:, None] * pull, design), "var": dvar}
        var_e = np.broadcast_to(var, E)
        dvar = 0.5 * (_scatter(weight, residual) / var_e**2 - C * n / var_e)
        grads = affine_backward(weight[:, None] * residual / var_e[:, None, None], design)
        return {**grads, "var": dvar if var.ndim else dvar.sum()}

    @one_blas_thread()
    def m_step(
        self,
        params: Params | None,
        design: Design,
        y: ArrayNC,
        resp: ArrayNE,
        ridge: float = 0.0,
        steps: int = 1,
    ) -> Params:
        """W_e and b_e by least squares with weights resp_e; Σ_e from the weighted residuals.

        W_e does not depend on Σ_e, since all outputs of an expert have the same weights. The ridge
        counts as `ridge` further cases per input, in which this input is 1 and y is 0. Eigenvalues
        that are raised to the floor are the maximum under this constraint, so EM never falls.
        `steps` has no effect: the maximum is exact.
        """
        new = unpack(weighted_least_squares(design, y, resp, ridge, pack(params)))
        return {**new, "var": self._variance(new, design, y, resp, ridge)}

    def _variance(self, params, design, y, resp, ridge):
        """The variances of highest likelihood, given W and b."""
        if self.covariance == "fixed":
            return np.array(float(self.variance))
        residual = _residual(params, design, y)
        C = y.shape[1]
        n = resp.sum(axis=0)
        if self.covariance == "full":
            return self._full_covariance(params["W"], residual, resp, ridge)
        scatter = _scatter(resp.T, residual)
        scatter += ridge * (params["W"] ** 2).sum(axis=(1, 2))
        var = scatter.sum() / (C * n.sum())
        if self.covariance == "expert":
            var = np.where(n > NEGLIGIBLE, scatter / (C * np.where(n > NEGLIGIBLE, n, 1)), var)
        return np.maximum(var, self.floor)

    def _full_covariance(self, W, residual, resp, ridge):
        """Σ_n resp_e r rᵀ / Σ_n resp_e, no eigenvalue below the floor; common where resp_e is 0."""
        C = residual.shape[1]
        n = resp.sum(axis=0)
        scatter = (resp.T[:, None, :] * residual) @ residual.swapaxes(1, 2)
        scatter += ridge * W.swapaxes(1, 2) @ W
        common = np.diag(np.einsum("ecc->c", scatter) / n.sum())
        used = (n > NEGLIGIBLE)[:, None, None]
        divisor = np.where(used, n[:, None, None], 1)
        var = np.where(used, scatter / divisor, common)
        # in the unit in which the floor is 1, the eigenvalues below it are raised to it
        unit = np.sqrt(np.asarray(self.floor))
        low = self.smallest(var) < 1
        var = _raised(var, np.zeros(C) if unit.ndim else self.floor)
        if unit.ndim and low.any():
            raised = _raised(var[low] / np.outer(unit, unit), 1.0)
            var[low] = raised * np.outer(unit, unit)
        return var

    def smallest(self, var: Array) -> ArrayE:
        """The smallest variance of each expert in any direction, as a multiple of the floor."""
        if var.ndim < 3:
            return var / self.floor
        unit = np.broadcast_to(np.sqrt(np.asarray(self.floor)), var.shape[1])
        return np.linalg.eigvalsh(var / np.outer(unit, unit))[:, 0]

    def penalty(self, params: Params, ridge: float) -> float:
        """½ ridge Σ_e tr(W_e Σ_e⁻¹ W_eᵀ)."""
        W = params["W"]
        var = params["var"]
        if var.ndim == 3:
            scaled = np.linalg.solve(var, W.swapaxes(1, 2))
            return 0.5 * ridge * float(np.einsum("edc,ecd->", W, scaled))
        return 0.5 * ridge * float(((W**2).sum(axis=(1, 2)) / var).sum())

    def pool_variance(self, params: Params, resp: ArrayNE) -> Params:
        """Every variance replaced by their mean, weighted by the experts' numbers of cases."""
        var = params["var"]
        if var.ndim == 0:
            return params
        mean = np.tensordot(resp.mean(axis=0), var, axes=1)
        return {**params, "var": np.broadcast_to(mean, var.shape).copy()}

    def outputs(self, params: Params, design: Design) -> ArrayNEC:
        """The mean x W_e + b_e of every expert."""
        return affine(params, design).transpose(2, 0, 1)

    def draw(self, params: Params, expert: ArrayN, outputs: ArrayNC, rng: Rng) -> ArrayNC:
        """One y per case, from the Gaussian of its expert about `outputs`."""
        z = rng.normal(size=outputs.shape)
        var = params["var"]
        if var.ndim == 3:
            return outputs + np.einsum("ncd,nd->nc", np.linalg.cholesky(var)[expert], z)
        return outputs + np.sqrt(np.broadcast_to(var, len(params["W"])))[expert, None] * z

    def n_parameters(self, params: Params) -> int:
        """The number of free parameters of the experts."""
        E, D, C = params["W"].shape
        of_variance = {"fixed": 0, "shared": 1, "expert": E, "full": E * C * (C + 1) // 2}
        return E * (D + 1) * C + of_variance[self.covariance]


def _raised(var, floor):
    """Covariance matrices whose eigenvalues are at least the floor."""
    size, axes = np.linalg.eigh(var)
    var = (axes * np.maximum(size, floor)[:, None, :]) @ axes.swapaxes(1, 2)
    return 0.5 * (var + var.swapaxes(1, 2))


def _residual(params, design, y):
    """y − (x W_e + b_e), (E, C, N)."""
    residual = affine(params, design)
    return np.subtract(y.T, residual, out=residual)


def _scatter(weight, residual):
    """Σ_cn weight_en residual_ecn², (E,)."""
    return np.einsum("en,en->e", weight, np.einsum("ecn,ecn->en", residual, residual))


class Categorical(NamedTuple):
    """y is a class label, a whole number below C: P(y = c | x, e) = softmax_c(x W_e + b_e).

    n_classes   C; None is the largest label plus one. A class without a case is allowed.
    """

    n_classes: int | None = None

    def resolve(self, y: ArrayN, weight: ArrayN | None = None) -> tuple["Categorical", ArrayN]:
        """(family with n_classes, y in int64). Raises InputError for bad settings or labels."""
        y = checks.array("y", y, ("N",), kind="i").astype(np.int64)
        largest = y.max(initial=0)
        n_classes = max(int(largest) + 1, 2) if self.n_classes is None else self.n_classes
        if self.n_classes is None and n_classes > max(1000, len(y)):
            raise checks.InputError(
                f"n_classes: wanted it given for labels up to {n_classes - 1} of {len(y)} cases, "
                "got None"
            )
        checks.integer("n_classes", n_classes, minimum=2)
        if y.min(initial=0) < 0 or largest >= n_classes:
            raise checks.InputError(
                f"y: wanted labels from 0 to {n_classes - 1}, got {y.min()} to {y.max()}"
            )
        return self._replace(n_classes=n_classes), y

    @property
    def classes(self) -> int:
        """The number of classes C, which `resolve` has set."""
        assert self.n_classes is not None
        return self.n_classes

    @one_blas_thread()
    def log_density(self, params: Params, design: Design, y: ArrayN) -> ArrayNE:
        """log softmax_y(x W_e + b_e): y names a class, not the number of an expert (errata 15)."""
        logp = numerics.log_softmax(affine(params, design), axis=1)
        return logp[:, y, np.arange(len(y))].T

    def gradient(self, params: Params, design: Design, y: ArrayN, resp: ArrayNE) -> Params:
        """dlogits_ec = resp_e ([y = c] − p_ec)."""
        p = numerics.softmax(affine(params, design), axis=1)
        onehot = np.arange(self.classes)[:, None] == y
        return affine_backward(resp.T[:, None] * (onehot - p), design)

    @one_blas_thread()
    def m_step(
        self,
        params: Params | None,
        design: Design,
        y: ArrayN,
        resp: ArrayNE,
        ridge: float = 0.0,
        steps: int = 1,
    ) -> Params:
        """`steps` of IRLS: one multinomial logistic regression per expert, with weights resp_e."""
        onehot = np.eye(self.classes)[y]
        options = {"initial": pack(params), "ridge": ridge, "max_steps": steps}
        coef, _ = multinomial_irls(design, onehot, resp, **options)
        return unpack(coef)

    def penalty(self, params: Params, ridge: float) -> float:
        """½ ridge Σ_e Σ_c ‖slopes − their mean over c‖²."""
        W = params["W"]
        return 0.5 * ridge * float(((W - W.mean(axis=2, keepdims=True)) ** 2).sum())

    def pool_variance(self, params: Params, resp: ArrayNE) -> Params:
        """The parameters as they are: there is no variance."""
        return params

    def outputs(self, params: Params, design: Design) -> ArrayNEC:
        """The class probabilities of every expert."""
        return numerics.softmax(affine(params, design), axis=1).transpose(2, 0, 1)

    def draw(self, params: Params, expert: ArrayN, outputs: ArrayNC, rng: Rng) -> ArrayN:
        """One label per case, with the probabilities `outputs`."""
        return draw_category(outputs, rng)

    def n_parameters(self, params: Params) -> int:
        """The number of free parameters of the experts; the last class needs none."""
        E, D, C = params["W"].shape
        return E * (D + 1) * (C - 1)


Family = Gaussian | Categorical


def draw_category(probs: Annotated[np.ndarray, "N, K"], rng: Rng) -> ArrayN:
    """One column number per row, drawn with the probabilities of the row."""
    u = rng.random((len(probs), 1))
    return np.minimum((probs.cumsum(axis=1) <= u).sum(axis=1), probs.shape[1] - 1)
