"""The kinds of experts that EM trains: Gaussian ones for numbers, categorical ones for labels.

A family holds its settings and says what EM asks of an expert:

    resolve(y)                                     -> (family, y)       settings that depend on the data filled in
    log_density(params, design, y)                 -> (N, E)            log P(y_n | x_n, expert e)
    m_step(params, design, y, resp, ridge, steps)  -> params            one regression an expert, with weights resp
    penalty(params, ridge)                         -> number            what the ridge costs
    pooled(params, resp)                           -> params            a start in which no expert is surer than another
    outputs(params, design)                        -> (N, E, C)         an expert's mean, or its class probabilities
    draw(params, outputs, rng)                     -> y                 one case each from outputs (N, C) of expert (N,)
    gradient(params, design, y, resp)              -> grads             of Σ_n log Σ_e g_e P(y_n | x_n, e)
    n_parameters(params)                           -> int

    here        shape                      meaning
    W, b        (E, D, C), (E, C)          slopes and constants: mean, or logits of the classes, x W_e + b_e
    var         (), (E,) or (E, C, C)      variance of all experts, of each, covariance matrix of each
    design                                 inputs as `irls.design(x)` makes them
    resp        (N, E)                     responsibilities

Arrays (N, E) have the cases contiguous in memory, which sums over experts like.
"""

import math
from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.mixtures import irls

COVARIANCES = ("fixed", "shared", "expert", "full")
NOBODY = 1e-16  # an expert with less weight than this has no case: its variance would be rounding


def affine(params, design):
    """x W_e + b_e of all experts, (E, C, N)."""
    W, b = params["W"], params["b"] + design.mean @ params["W"]
    E, D, C = W.shape
    out = W.transpose(0, 2, 1).reshape(E * C, D) @ design.xt[:-1]
    out += b.reshape(E * C, 1)
    return out.reshape(E, C, -1)


def affine_gradient(dout, design):
    """{"W", "b"} from dout (E, C, N)."""
    E, C, N = dout.shape
    flat = (dout.reshape(E * C, N) @ design.xt.T).reshape(E, C, -1)
    db = flat[:, :, -1]
    return {
        "W": flat[:, :, :-1].transpose(0, 2, 1) + design.mean[:, None] * db[:, None, :],
        "b": db,
    }


def unpack(coef):
    """(E, D + 1, C) -> {"W": (E, D, C), "b": (E, C)}."""
    return {"W": coef[:, :-1], "b": coef[:, -1]}


def pack(params):
    """The way back; None stays None."""
    return params and np.concatenate([params["W"], params["b"][:, None, :]], axis=1)


class Gaussian(NamedTuple):
    """y ~ N(x W_e + b_e, Σ_e), y (N, C).

    covariance  "fixed" Σ = variance · I for all; "shared" σ² I, σ² one for all and learned; "expert" σ_e² I;
                "full" any matrix for each expert
    variance    used if fixed
    floor       no variance (no eigenvalue of Σ_e) falls below it; None is 1e-6 of the mean variance of y
    """

    covariance: str = "expert"
    variance: float = 1.0
    floor: float | None = None

    def resolve(self, y):
        checks.choice("covariance", self.covariance, COVARIANCES)
        y = checks.array("y", y, ("N", "C")).astype(np.float64)
        if not y.shape[1]:
            raise checks.InputError(f"y: wanted at least one output, got shape {y.shape}")
        checks.number("variance", self.variance, above=0)
        floor = 1e-6 * (y.var(axis=0).mean() or 1.0) if self.floor is None else self.floor
        return self._replace(floor=checks.number("floor", floor, above=0)), y

    @irls.one_thread
    def log_density(self, params, design, y):
        """−½ (y − μ_e)ᵀ Σ_e⁻¹ (y − μ_e) − ½ log det 2π Σ_e."""
        residual, var = affine(params, design), params["var"]
        np.subtract(y.T, residual, out=residual)  # (E, C, N)
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

    @irls.one_thread
    def m_step(self, params, design, y, resp, ridge=0.0, steps=1):
        """W_e and b_e by least squares with weights resp_e; Σ_e the weighted mean of squares of
        what is left.

        W_e is the same whatever Σ_e, since all outputs of an expert have the same weights. The
        ridge counts as `ridge` more cases for each input, in which it is 1 and y is 0. Eigenvalues
        raised to the floor are the maximum under that condition, so EM still never falls.
        """
        new = unpack(irls.weighted_least_squares(design, y, resp, ridge, pack(params)))
        if self.covariance == "fixed":
            return {**new, "var": np.array(float(self.variance))}
        residual = affine(new, design)
        np.subtract(y.T, residual, out=residual)
        C, n, weight = y.shape[1], resp.sum(axis=0), resp.T
        if self.covariance == "full":
            scatter = (weight[:, None, :] * residual) @ residual.swapaxes(1, 2)
            scatter += ridge * new["W"].swapaxes(1, 2) @ new["W"]
            common = np.einsum("ecc->", scatter) / (C * n.sum()) * np.eye(C)
            own = np.where(n > NOBODY, n, 1)[:, None, None]
            size, axes = np.linalg.eigh(
                np.where((n > NOBODY)[:, None, None], scatter / own, common)
            )
            var = (axes * np.maximum(size, self.floor)[:, None, :]) @ axes.swapaxes(1, 2)
            return {**new, "var": 0.5 * (var + var.swapaxes(1, 2))}
        scatter = _weighted(weight, residual)
        scatter += ridge * (new["W"] ** 2).sum(axis=(1, 2))
        var = scatter.sum() / (C * n.sum())
        if self.covariance == "expert":
            var = np.where(n > NOBODY, scatter / (C * np.where(n > NOBODY, n, 1)), var)
        return {**new, "var": np.maximum(var, self.floor)}

    def penalty(self, params, ridge):
        """½ ridge Σ_e tr(W_e Σ_e⁻¹ W_eᵀ)."""
        W, var = params["W"], params["var"]
        if var.ndim == 3:
            return (
                0.5
                * ridge
                * float(np.einsum("edc,ecd->", W, np.linalg.solve(var, W.swapaxes(1, 2))))
            )
        return 0.5 * ridge * float(((W**2).sum(axis=(1, 2)) / var).sum())

    def pooled(self, params, resp):
        """The mean of all variances, weighted by cases, in place of each."""
        var = params["var"]
        if var.ndim == 0:
            return params
        share = resp.mean(axis=0)
        return {
            **params,
            "var": np.broadcast_to(np.tensordot(share, var, axes=1), var.shape).copy(),
        }

    def outputs(self, params, design):
        return affine(params, design).transpose(2, 0, 1)

    def draw(self, params, expert, outputs, rng):
        z = rng.normal(size=outputs.shape)
        var = params["var"]
        if var.ndim == 3:
            return outputs + np.einsum("ncd,nd->nc", np.linalg.cholesky(var)[expert], z)
        return outputs + np.sqrt(np.broadcast_to(var, len(params["W"])))[expert, None] * z

    def gradient(self, params, design, y, resp):
        """dμ_e = resp_e Σ_e⁻¹ (y − μ_e); dΣ_e = ½ Σ_n resp_e (Σ_e⁻¹ r rᵀ Σ_e⁻¹ − Σ_e⁻¹), r = y −
        μ_e.
        """
        var, residual = params["var"], y.T - affine(params, design)
        E, C, _ = residual.shape
        weight, n = resp.T, resp.sum(axis=0)
        if var.ndim == 3:
            inverse = np.linalg.inv(var)
            pull = inverse @ residual
            dvar = 0.5 * (
                (weight[:, None] * pull) @ pull.swapaxes(1, 2) - n[:, None, None] * inverse
            )
            return {**affine_gradient(weight[:, None] * pull, design), "var": dvar}
        own = np.broadcast_to(var, E)
        dvar = 0.5 * (_weighted(weight, residual) / own**2 - C * n / own)
        grads = affine_gradient(weight[:, None] * residual / own[:, None, None], design)
        return {**grads, "var": dvar if var.ndim else dvar.sum()}

    def n_parameters(self, params):
        E, D, C = params["W"].shape
        return (
            E * (D + 1) * C
            + {"fixed": 0, "shared": 1, "expert": E, "full": E * C * (C + 1) // 2}[self.covariance]
        )


def _weighted(weight, residual):
    """Σ_cn weight_en residual_ecn², (E,)."""
    return np.einsum("en,en->e", weight, np.einsum("ecn,ecn->en", residual, residual))


class Categorical(NamedTuple):
    """y is a label, a whole number below C: P(y = c | x, e) = softmax_c(x W_e + b_e).

    n_classes   C; None is one more than the largest label. A class without a case is allowed.
    """

    n_classes: int | None = None

    def resolve(self, y):
        y = checks.array("y", y, ("N",), kind="i").astype(np.int64)
        n_classes = max(int(y.max(initial=0)) + 1, 2) if self.n_classes is None else self.n_classes
        if self.n_classes is None and n_classes > max(1000, len(y)):
            raise checks.InputError(
                f"n_classes: wanted it given for labels up to {n_classes - 1} of {len(y)} cases, got None"
            )
        checks.integer("n_classes", n_classes, minimum=2)
        if y.min(initial=0) < 0 or y.max(initial=0) >= n_classes:
            raise checks.InputError(
                f"y: wanted labels from 0 to {n_classes - 1}, got {y.min()} to {y.max()}"
            )
        return self._replace(n_classes=n_classes), y

    @irls.one_thread
    def log_density(self, params, design, y):
        """The log probability of the class that y says, and not of "y is the number of the expert"
        (errata 15).
        """
        logp = numerics.log_softmax(affine(params, design), axis=1)
        return logp[:, y, np.arange(len(y))].T

    @irls.one_thread
    def m_step(self, params, design, y, resp, ridge=0.0, steps=1):
        """A multinomial logistic regression of the label for each expert, with weights resp_e:
        `steps` of IRLS.
        """
        onehot, start = np.eye(self.n_classes)[y], pack(params)
        return unpack(
            irls.multinomial_irls(design, onehot, resp, start=start, ridge=ridge, max_steps=steps)[
                0
            ]
        )

    def penalty(self, params, ridge):
        """½ ridge Σ_e Σ_c ‖slopes − their mean over c‖²."""
        W = params["W"]
        return 0.5 * ridge * float(((W - W.mean(axis=2, keepdims=True)) ** 2).sum())

    def pooled(self, params, resp):
        return params

    def outputs(self, params, design):
        return numerics.softmax(affine(params, design), axis=1).transpose(2, 0, 1)

    def draw(self, params, expert, outputs, rng):
        return choose(outputs, rng)

    def gradient(self, params, design, y, resp):
        """d logits_ec = resp_e (1 if y is c, else 0, − p_ec)."""
        p = numerics.softmax(affine(params, design), axis=1)
        onehot = np.arange(self.n_classes)[:, None] == y
        return affine_gradient(resp.T[:, None] * (onehot - p), design)

    def n_parameters(self, params):
        E, D, C = params["W"].shape
        return E * (D + 1) * (C - 1)


def choose(probs, rng):
    """One column a row, with the probabilities probs (N, K): (N,)."""
    u = rng.random((len(probs), 1))
    return np.minimum((probs.cumsum(axis=1) < u).sum(axis=1), probs.shape[1] - 1)
