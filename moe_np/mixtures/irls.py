"""The two regressions of which an M step is made: weighted least squares, and weighted multinomial
logistic regression.

Jordan and Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural Computation
6:181-214, section 4 and appendix A. Both take a whole stack of problems that share their inputs
(all experts, all gates of a level of a tree): what is summed over cases, Σ_n weight_n x_n x_nᵀ, is
then one matrix product for the stack.

    here        shape             meaning
    x           (N, D)            inputs, or the `Design` that `design(x)` made of them once
    weight      (N, M)            weight of each case in each problem of the stack
    coef        (M, D + 1, C)     slopes, and in the last row the constants

Sums are in float64 and about the mean of x. Ridge is ½ ridge ‖slopes‖²; constants are never shrunk.
"""

import functools
from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.machine import one_blas_thread

KEEP = 1 << 23  # numbers: products of the inputs are kept if they are not more than this, 64 MB
# an input whose range is no more than this part of its size does not vary
CONSTANT = 16 * np.finfo(float).eps
SINGULAR = 1e-6  # a pivot of the scaled matrix below this (√(1 − R²) of an input on the others) counts as 0
HALVINGS = 10
FARTHEST = 100.0  # no Newton step moves a logit by more than this


def one_thread(function):
    """The function, run with a BLAS of one thread: regressions are many small products, one after
    the other.
    """

    @functools.wraps(function)
    def alone(*args, **kwargs):
        with one_blas_thread():
            return function(*args, **kwargs)

    return alone


class Design(NamedTuple):
    """Inputs made ready for many regressions on them."""

    xt: np.ndarray  # (D + 1, N) inputs less their mean, one a row; the last row is 1
    # (P, N) the products of every two rows of xt, P = (D + 1)(D + 2) / 2, or too large
    products: np.ndarray | None
    mean: np.ndarray  # (D,)


def design(x):
    """x (N, D) -> Design; a Design comes back as it is."""
    if isinstance(x, Design):
        return x
    x = checks.array("x", x, ("N", "D")).astype(np.float64)
    N, D = x.shape
    mean = x.mean(axis=0) if N else np.zeros(D)
    xt = np.ones((D + 1, N))
    xt[:D] = (x - mean).T
    rounding = CONSTANT * np.abs(x).max(axis=0, initial=0)
    xt[:D][x.max(axis=0, initial=-np.inf) - x.min(axis=0, initial=np.inf) <= rounding] = (
        0  # less its mean it is noise
    )
    products = None
    if N * (D + 1) * (D + 2) // 2 <= KEEP:
        products = np.concatenate([xt[k] * xt[k:] for k in range(D + 1)])
    return Design(xt, products, mean)


def gram(design, weight):
    """Σ_n weight_mn x_n x_nᵀ for weight (M, N) -> (M, D + 1, D + 1)."""
    K, M = len(design.xt), len(weight)
    if design.products is None:
        return (
            np.stack([(design.xt * w) @ design.xt.T for w in weight]) if M else np.zeros((0, K, K))
        )
    packed = weight @ design.products.T
    i, j = _pairs(K)
    out = np.empty((M, K, K))
    out[:, i, j] = out[:, j, i] = packed
    return out


@functools.cache
def _pairs(K):
    return np.triu_indices(K)


def solve(a, b):
    """z of a z = b for symmetric a (M, K, K), not negative, and b (M, K, C); the smallest z where a
    is singular.
    """
    size = np.sqrt(np.einsum("mkk->mk", a))[:, :, None]
    size = np.where(size > 1e-75, size, np.inf)  # no curvature at all: no step that way
    a, b = a / (size * size.swapaxes(1, 2)), b / size
    try:
        regular = np.einsum("mkk->mk", np.linalg.cholesky(a)).min(initial=1) > SINGULAR
    except np.linalg.LinAlgError:
        regular = False
    z = (
        np.linalg.solve(a, b)
        if regular
        else np.linalg.pinv(a, rcond=SINGULAR**2, hermitian=True) @ b
    )
    return z / size


def _weight(weight, shape):
    weight = checks.array("weight", weight, shape)
    if weight.size and weight.min() < 0:
        raise checks.InputError(f"weight: wanted no negative numbers, got {weight.min():g}")
    return weight


def from_centre(coef, mean):
    """Coefficients (..., D + 1, C) about the mean of x -> about 0. With −mean, the way back."""
    coef = coef.copy()
    coef[..., -1, :] -= mean @ coef[..., :-1, :]
    return coef


# --- Gaussian experts -----------------------------------------------------------------------------


@one_thread
def weighted_least_squares(x, y, weight, ridge=0.0, start=None):
    """argmin over coef of Σ_n weight_nm ‖y_n − coef_mᵀ (x_n, 1)‖² + ridge ‖slopes_m‖², for every
    problem m.

    x (N, D) or Design, y (N, C), weight (N, M), not negative -> coef (M, D + 1, C). Normal
    equations on scaled inputs. Collinear inputs, fewer cases than inputs and a weight of 0
    throughout give the solution that is nearest to `start`, coefficients as those that are
    returned; None is 0. So what rounding hides stays as it was, and the fit is never worse than the
    start.
    """
    own = design(x)
    K, N = own.xt.shape
    y, weight = checks.array("y", y, (N, "C")), _weight(weight, (N, "M"))
    C, M = y.shape[1], weight.shape[1]
    a = gram(own, weight.T)
    a[:, range(K - 1), range(K - 1)] += checks.number("ridge", ridge, minimum=0)
    wy = np.multiply(weight.T[:, None, :], np.ascontiguousarray(y.T), order="C")  # (M, C, N)
    b = (wy.reshape(M * C, N) @ own.xt.T).reshape(M, C, K).swapaxes(1, 2)
    if start is None:
        return from_centre(solve(a, b), own.mean)
    start = from_centre(checks.array("start", start, (M, K, C)), -own.mean)
    return from_centre(start + solve(a, b - a @ start), own.mean)


# --- Gates and categorical experts ----------------------------------------------------------------


class Info(NamedTuple):
    """How a fit went; for a stack every field but `steps` has an entry a problem."""

    value: np.ndarray  # the objective at the end
    start: np.ndarray  # and at the start: value ≥ start, always
    converged: np.ndarray  # Newton's step promised no more than tol
    steps: int  # how many were made


@one_thread
def multinomial_irls(x, target, weight=None, *, start=None, ridge=0.0, max_steps=25, tol=1e-10):
    """argmax over coef of Σ_n weight_n Σ_k target_nk log softmax_k(coefᵀ (x_n, 1)) − penalty, by
    Newton's method.

    x        (N, D) or Design
    target   (N, K), rows that sum to 1: responsibilities, or one-hot labels; for a stack (N, M, K)
    weight   (N,), not negative; for a stack (N, M), in which case one target (N, K) may serve for all; None is 1
    start    coefficients to begin from; None is 0
    tol      stop when the next step promises less than tol · Σ weight (nats)

    Returns (coef, Info); coef (D + 1, K), for a stack (M, D + 1, K). The last class has
    coefficients 0, since only differences count. The penalty ½ ridge Σ_k ‖slopes_k − their mean
    over k‖² does not care which class that is.

    Newton's step for this likelihood is a least squares with weights p(1 − p), hence IRLS. Far from
    the maximum it can overshoot (errata 14), so it is halved until the objective rises; where no
    halving helps, because softmaxes have saturated and the curvature is lost to rounding, the step
    of Böhning's bound does (1992, Ann. Inst. Stat. Math. 44:197): the curvature is nowhere more
    than ½ (I − 11ᵀ/K) ⊗ Σ weight x xᵀ. So the objective never falls. On separable cases there is no
    maximum; the coefficients grow until a step promises less than tol.
    """
    own = design(x)
    checks.integer("max_steps", max_steps, minimum=0)
    tol, ridge = checks.number("tol", tol, minimum=0), checks.number("ridge", ridge, minimum=0)
    stacked = np.ndim(target) == 3 or (weight is not None and np.ndim(weight) == 2)
    problem, theta = _problem(own, target, weight, start, ridge, stacked)
    logp = numerics.log_softmax(_logits(own, theta), axis=0)
    value = first = _value(problem, logp, theta)
    done, bound, steps = (
        np.full(len(value), len(theta) == 0),
        None,
        0,
    )  # of one class, nothing is to be learned
    while steps < max_steps and not done.all():
        little = tol * problem.total + 16 * np.finfo(float).eps * np.abs(value)
        gradient, hessian = _derivatives(problem, logp, theta)
        delta = _step(hessian, gradient)
        at = theta, logp, value
        *at, moved = _halve(problem, *at, delta, ~done & (_promise(gradient, delta) > little))
        rest = ~done & ~moved
        if (
            rest.any()
        ):  # at the maximum, or where Newton cannot see because all softmaxes have saturated
            bound = _bound(problem, len(theta)) if bound is None else bound
            delta = _step(bound, gradient)
            *at, moved = _halve(problem, *at, delta, rest & (_promise(gradient, delta) > little))
            done = done | (rest & ~moved)
        theta, logp, value = at
        steps += 1
    coef = np.concatenate([theta, np.zeros((1, *theta.shape[1:]))]).transpose(1, 2, 0)
    coef = from_centre(coef, own.mean)
    if stacked:
        return coef, Info(value, first, done, steps)
    return coef[0], Info(value[0], first[0], done[0], steps)


class _Problem(NamedTuple):
    design: Design
    target: np.ndarray  # (K, M, N), times weight
    weight: np.ndarray  # (M, N)
    total: np.ndarray  # (M,) Σ weight
    ridge: float


def _problem(own, target, weight, start, ridge, stacked):
    """Everything with the cases last, and the start theta (K − 1, M, D + 1) about the mean of x."""
    D, N = own.xt.shape
    target = checks.array("target", target, (N, "M", "K") if np.ndim(target) == 3 else (N, "K"))
    if target.min(initial=0) < 0 or np.abs(target.sum(axis=-1) - 1).max(initial=0) > 1e-4:
        raise checks.InputError("target: wanted no negative numbers, and rows that sum to 1")
    weight = np.ones(N) if weight is None else _weight(weight, (N, "M")[: max(np.ndim(weight), 1)])
    target = target if target.ndim == 3 else target[:, None]
    weight = weight if weight.ndim == 2 else weight[:, None]
    K, M = target.shape[2], weight.shape[1] if target.shape[1] == 1 else target.shape[1]
    if weight.shape[1] not in (1, M):
        raise checks.InputError(
            f"weight: wanted {M} columns, one a problem of target, got {weight.shape[1]}"
        )
    weight = np.broadcast_to(weight.T, (M, N))
    target = target.transpose(2, 1, 0) * weight  # (K, M, N)
    if start is None:
        theta = np.zeros((K - 1, M, D))
    else:
        start = checks.array("start", start, (M, D, K) if stacked else (D, K))
        theta = from_centre(start if stacked else start[None], -own.mean)
        theta = (theta[:, :, :-1] - theta[:, :, -1:]).transpose(2, 0, 1)
    return _Problem(own, target, weight, weight.sum(axis=1), ridge), theta


def _logits(own, theta):
    """(K, M, N) from theta (K − 1, M, D + 1): the last class has 0."""
    K, M, D = theta.shape
    out = np.zeros((K + 1, M, own.xt.shape[1]))
    np.matmul(theta.reshape(K * M, D), own.xt, out=out[:K].reshape(K * M, out.shape[2]))
    return out


def _slopes(theta):
    """The slopes about their mean over all classes, the last among them: (K − 1, M, D), and that
    mean (M, D).
    """
    mean = theta[:, :, :-1].sum(axis=0) / (len(theta) + 1)
    return theta[:, :, :-1] - mean, mean


def _value(problem, logp, theta):
    """The objective (M,)."""
    slopes, mean = _slopes(theta)
    penalty = 0.5 * problem.ridge * ((slopes**2).sum(axis=(0, 2)) + (mean**2).sum(axis=1))
    return np.einsum("kmn,kmn->m", problem.target, logp) - penalty


def _derivatives(problem, logp, theta):
    """Gradient (K − 1, M, D + 1) and minus the Hessian, (K − 1, K − 1, M, D + 1, D + 1).

    Σ weight (target − p) x, and Σ weight p_k (δ_kl − p_l) x xᵀ.
    """
    K, M, D = theta.shape
    p = np.exp(logp[:-1])
    wp = problem.weight * p
    residual = problem.target[:-1] - wp
    gradient = (residual.reshape(K * M, -1) @ problem.design.xt.T).reshape(K, M, D)
    hessian = np.empty((K, K, M, D, D))
    for k in range(K):
        curvature = -wp[k] * p[k:]
        curvature[0] += wp[k]
        block = gram(problem.design, curvature.reshape((K - k) * M, -1)).reshape(K - k, M, D, D)
        hessian[k, k:] = hessian[k:, k] = block
    if problem.ridge:
        gradient[:, :, :-1] -= problem.ridge * _slopes(theta)[0]
        hessian += _ridge_curvature(problem.ridge, K, D)
    return gradient, hessian


def _ridge_curvature(ridge, K, D):
    shrunk = np.diag(np.append(np.ones(D - 1), 0.0))
    return ridge * (np.eye(K) - 1 / (K + 1))[:, :, None, None, None] * shrunk


def _bound(problem, K):
    """Böhning's bound on minus the Hessian, in the same shape."""
    block = gram(problem.design, problem.weight)
    bound = 0.5 * (np.eye(K) - 1 / (K + 1))[:, :, None, None, None] * block
    return bound + _ridge_curvature(problem.ridge, K, block.shape[-1])


def _step(hessian, gradient):
    """hessian⁻¹ gradient of each problem: (K, K, M, D, D) and (K, M, D) -> (K, M, D)."""
    K, M, D = gradient.shape
    matrix = hessian.transpose(2, 0, 3, 1, 4).reshape(M, K * D, K * D)
    flat = solve(matrix, gradient.transpose(1, 0, 2).reshape(M, K * D, 1))
    return flat.reshape(M, K, D).transpose(1, 0, 2)


def _promise(gradient, delta):
    """What a step would gain if the objective were the parabola that it comes from: ½ gradient ·
    delta, (M,).
    """
    return 0.5 * np.einsum("kmd,kmd->m", gradient, delta)


def _halve(problem, theta, logp, value, delta, moving):
    """theta + size · delta, for each moving problem with the first size of 1, ½, ¼, ... at which
    its value rises.

    Returns (theta, logp, value, moved). What no size helps stays where it is.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a step that is no number is not taken
        far = np.abs(_logits(problem.design, delta)).max(axis=(0, 2), initial=0)
    moving = moving & np.isfinite(far)
    size = np.where(moving, FARTHEST / np.fmax(far, FARTHEST), 0)
    delta = np.where(moving[:, None], delta, 0)
    for _ in range(HALVINGS):
        if not moving.any():
            break
        new = theta + size[:, None] * delta
        new_logp = numerics.log_softmax(_logits(problem.design, new), axis=0)
        new_value = _value(problem, new_logp, new)
        moved = moving & (new_value > value)
        if (moved == moving).all():
            return new, new_logp, new_value, moved
        size[moving & ~moved] /= 2
    else:  # some have risen, others never will
        keep = np.where(moved[:, None], new, theta), np.where(moved[:, None], new_logp, logp)
        return *keep, np.where(moved, new_value, value), moved
    return theta, logp, value, moving
