"""Iteratively reweighted least squares (IRLS): weighted multinomial logistic regression by Newton's
method, with step halving.

Jordan and Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural Computation
6:181-214, appendix A. In EM it is the M step of a gating network, whose targets are
responsibilities, and of categorical experts. A stack of problems (all gates of one level of a tree,
all experts) shares its inputs and is solved at once.

    here        shape             meaning
    x           (N, D)            inputs, or their `Design` (least_squares.py)
    target      (N, M, K)         probabilities of the K classes
    weight      (N, M)            weight of each case in each problem of the stack
    p           (K, M, N)         softmax_k(coef_kᵀ (x_n, 1)), its logarithm is `logp`
    theta       (K − 1, M, D + 1) coefficients of the classes but the last, about the mean of x
    coef        (M, D + 1, K)     the same as it is returned: slopes, and constants in the last row

The objective of one problem is Σ_n weight_n Σ_k target_nk log p_nk − ½ ridge ‖slopes‖²; the ridge
penalty (weight decay) leaves the constants alone. Its gradient is Σ_n weight_n (target_n − p_n) x_n
and minus its Hessian Σ_n weight_n p_k (δ_kl − p_l) x_n x_nᵀ, so the Newton step solves a least
squares problem with weights p (1 − p), which change from step to step: hence the name.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import ArrayND
from moe_np.mixtures.least_squares import (
    Design,
    check_weight,
    from_centre,
    gram,
    make_design,
    solve,
)

ArrayM = Annotated[np.ndarray, "M"]
Theta = Annotated[np.ndarray, "K - 1, M, D + 1"]
Hessian = Annotated[np.ndarray, "K - 1, K - 1, M, D + 1, D + 1"]

HALVINGS = 10  # how often a step that does not raise the objective is halved
MAX_LOGIT_CHANGE = 100.0  # no Newton step moves a logit by more than this


class Info(NamedTuple):
    """How a fit went. For a stack every field but `steps` has one entry per problem."""

    value: ArrayM | float  # the objective at the end
    initial_value: ArrayM | float  # the objective at the beginning, never above `value`
    converged: np.ndarray | bool  # the Newton step promised no more than `tol`
    steps: int  # Newton steps that were made


@one_blas_thread()
def multinomial_irls(
    x: ArrayND | Design,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    initial: np.ndarray | None = None,
    ridge: float = 0.0,
    max_steps: int = 25,
    tol: float = 1e-10,
) -> tuple[np.ndarray, Info]:
    """The coefficients that maximise Σ_n weight_n Σ_k target_nk log softmax_k(coefᵀ (x_n, 1)) −
    penalty.

    target   (N, K), rows that sum to 1: responsibilities, or one-hot labels; for a stack (N, M, K)
    weight   (N,), not negative; for a stack (N, M), where one target (N, K) may serve all problems;
             None is 1
    initial  coefficients to begin with; None is 0
    tol      stop when the next step promises less than tol · Σ weight (nats)

    Returns (coef, Info): coef (D + 1, K), for a stack (M, D + 1, K). The last class has
    coefficients 0, since only differences of logits count. The penalty ½ ridge Σ_k ‖slopes_k −
    their mean over k‖² does not depend on which class is the last.

    Far from the maximum a Newton step can overshoot (errata 14), so it is halved until the
    objective rises. Where the softmaxes are saturated and the curvature is lost to rounding, no
    halving helps; then the step of Böhning's bound is made (1992, Ann. Inst. Stat. Math. 44:197):
    the curvature is nowhere more than ½ (I − 11ᵀ/K) ⊗ Σ weight x xᵀ. So the objective never falls.
    Separable cases have no maximum: coefficients grow until a step promises less than tol.
    """
    design = make_design(x)
    checks.integer("max_steps", max_steps, minimum=0)
    tol = checks.number("tol", tol, minimum=0)
    ridge = checks.number("ridge", ridge, minimum=0)
    target = checks.array("target", target, None)
    weight = None if weight is None else checks.array("weight", weight, None)
    stacked = np.ndim(target) == 3 or (weight is not None and np.ndim(weight) == 2)
    stack = make_stack(design, target, weight, ridge)
    point = evaluate(stack, initial_theta(stack, initial, stacked))
    initial_value = point.value
    finished = np.full(len(initial_value), len(point.theta) == 0)  # one class: nothing to learn
    bound = None
    steps = 0
    while steps < max_steps and not finished.all():
        # 1. Gradient and curvature, and the gain that counts as nothing.
        gradient, hessian = derivatives(stack, point)
        negligible = tol * stack.total + 16 * np.finfo(float).eps * np.abs(point.value)
        # 2. The Newton step, halved until the objective rises.
        delta = newton_step(hessian, gradient)
        promising = promised_gain(gradient, delta) > negligible
        point, moved = halve(stack, point, delta, ~finished & promising)
        # 3. Where it did not rise: the step of the bound. Where this is no help, the maximum.
        remaining = ~finished & ~moved
        if remaining.any():
            bound = curvature_bound(stack) if bound is None else bound
            delta = newton_step(bound, gradient)
            promising = promised_gain(gradient, delta) > negligible
            point, moved = halve(stack, point, delta, remaining & promising)
            finished = finished | (remaining & ~moved)
        steps += 1
    theta = point.theta
    coef = np.concatenate([theta, np.zeros((1, *theta.shape[1:]))]).transpose(1, 2, 0)
    coef = from_centre(coef, design.mean)
    if stacked:
        return coef, Info(point.value, initial_value, finished, steps)
    return coef[0], Info(point.value[0], initial_value[0], finished[0], steps)


# --- The stack of problems ------------------------------------------------------------------------


class Stack(NamedTuple):
    """Logistic regressions that share their inputs, in the layout of the Newton steps."""

    design: Design
    target: Annotated[np.ndarray, "K, M, N"]  # times weight
    weight: Annotated[np.ndarray, "M, N"]
    total: ArrayM  # Σ_n weight
    ridge: float


class Point(NamedTuple):
    """Coefficients of a stack, and what was computed at them."""

    theta: Theta
    logp: Annotated[np.ndarray, "K, M, N"]
    value: ArrayM  # the objective


def make_stack(
    design: Design, target: np.ndarray, weight: np.ndarray | None, ridge: float
) -> Stack:
    """Check target and weight, and bring them into the layout with the cases last."""
    N = design.xt.shape[1]
    target = checks.array("target", target, (N, "M", "K") if np.ndim(target) == 3 else (N, "K"))
    if target.min(initial=0) < 0 or np.abs(target.sum(axis=-1) - 1).max(initial=0) > 1e-4:
        raise checks.InputError("target: wanted no negative numbers, and rows that sum to 1")
    given = np.ones(N) if weight is None else weight
    weight = check_weight(given, (N, "M")[: max(np.ndim(given), 1)])
    target = target if target.ndim == 3 else target[:, None]
    weight = weight if weight.ndim == 2 else weight[:, None]
    M = weight.shape[1] if target.shape[1] == 1 else target.shape[1]
    if weight.shape[1] not in (1, M):
        raise checks.InputError(
            f"weight: wanted {M} columns, one per problem of target, got {weight.shape[1]}"
        )
    weight = np.broadcast_to(weight.T, (M, N))
    target = target.transpose(2, 1, 0) * weight  # (K, M, N)
    return Stack(design, target, weight, weight.sum(axis=1), ridge)


def initial_theta(stack: Stack, initial: np.ndarray | None, stacked: bool = True) -> Theta:
    """theta (K − 1, M, D + 1) of the given coefficients, (M, D + 1, K) if `stacked`; None is 0."""
    K, M, _ = stack.target.shape
    D = len(stack.design.xt)
    if initial is None:
        return np.zeros((K - 1, M, D))
    initial = checks.array("initial", initial, (M, D, K) if stacked else (D, K))
    theta = from_centre(initial if stacked else initial[None], -stack.design.mean)
    return (theta[:, :, :-1] - theta[:, :, -1:]).transpose(2, 0, 1)


def evaluate(stack: Stack, theta: Theta) -> Point:
    """log p and the objective at theta."""
    logp = numerics.log_softmax(_logits(stack.design, theta), axis=0)
    return Point(theta, logp, _objective(stack, logp, theta))


def _logits(design, theta):
    """(K, M, N) from theta (K − 1, M, D + 1): the last class has 0."""
    K, M, D = theta.shape
    out = np.zeros((K + 1, M, design.xt.shape[1]))
    np.matmul(theta.reshape(K * M, D), design.xt, out=out[:K].reshape(K * M, out.shape[2]))
    return out


def _objective(stack, logp, theta):
    """Σ_n weight_n Σ_k target_nk log p_nk − ½ ridge ‖slopes‖² of each problem, (M,)."""
    slopes, mean = _slopes(theta)
    penalty = 0.5 * stack.ridge * ((slopes**2).sum(axis=(0, 2)) + (mean**2).sum(axis=1))
    return np.einsum("kmn,kmn->m", stack.target, logp) - penalty


def _slopes(theta):
    """The slopes less their mean over all K classes, (K − 1, M, D), and that mean, (M, D).

    The last class has slopes 0, which are minus the mean after the subtraction.
    """
    mean = theta[:, :, :-1].sum(axis=0) / (len(theta) + 1)
    return theta[:, :, :-1] - mean, mean


# --- Newton steps ---------------------------------------------------------------------------------


def derivatives(stack: Stack, point: Point) -> tuple[Theta, Hessian]:
    """Gradient Σ weight (target − p) x and minus the Hessian Σ weight p_k (δ_kl − p_l) x xᵀ."""
    theta = point.theta
    K, M, D = theta.shape
    p = np.exp(point.logp[:-1])
    wp = stack.weight * p
    residual = stack.target[:-1] - wp
    gradient = (residual.reshape(K * M, -1) @ stack.design.xt.T).reshape(K, M, D)
    hessian = np.empty((K, K, M, D, D))
    for k in range(K):
        curvature = -wp[k] * p[k:]
        curvature[0] += wp[k]
        block = gram(stack.design, curvature.reshape((K - k) * M, -1)).reshape(K - k, M, D, D)
        hessian[k, k:] = hessian[k:, k] = block
    if stack.ridge:
        gradient[:, :, :-1] -= stack.ridge * _slopes(theta)[0]
        hessian += _ridge_curvature(stack.ridge, K, D)
    return gradient, hessian


def _ridge_curvature(ridge, K, D):
    penalised = np.diag(np.append(np.ones(D - 1), 0.0))
    return ridge * (np.eye(K) - 1 / (K + 1))[:, :, None, None, None] * penalised


def curvature_bound(stack: Stack) -> Hessian:
    """Böhning's bound on minus the Hessian: ½ (I − 11ᵀ/K) ⊗ Σ weight x xᵀ."""
    K = len(stack.target) - 1
    block = gram(stack.design, stack.weight)
    bound = 0.5 * (np.eye(K) - 1 / (K + 1))[:, :, None, None, None] * block
    return bound + _ridge_curvature(stack.ridge, K, block.shape[-1])


def newton_step(hessian: Hessian, gradient: Theta) -> Theta:
    """hessian⁻¹ gradient of each problem."""
    K, M, D = gradient.shape
    matrix = hessian.transpose(2, 0, 3, 1, 4).reshape(M, K * D, K * D)
    flat = solve(matrix, gradient.transpose(1, 0, 2).reshape(M, K * D, 1))
    return flat.reshape(M, K, D).transpose(1, 0, 2)


def promised_gain(gradient: Theta, delta: Theta) -> ArrayM:
    """½ gradient · delta: the gain of the step if the objective were a parabola."""
    return 0.5 * np.einsum("kmd,kmd->m", gradient, delta)


def halve(stack: Stack, point: Point, delta: Theta, moving: ArrayM) -> tuple[Point, ArrayM]:
    """Step halving: theta + size · delta, the first size of 1, ½, ¼, ... that raises the value.

    moving    (M,) bool: the problems that take a step

    Returns (point, moved (M,) bool). A problem for which no size helps stays where it is.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a step that is not finite is not made
        change = np.abs(_logits(stack.design, delta)).max(axis=(0, 2), initial=0)
    moving = moving & np.isfinite(change)
    size = np.where(moving, MAX_LOGIT_CHANGE / np.fmax(change, MAX_LOGIT_CHANGE), 0)
    delta = np.where(moving[:, None], delta, 0)
    for _ in range(HALVINGS):
        if not moving.any():
            break
        trial = evaluate(stack, point.theta + size[:, None] * delta)
        moved = moving & (trial.value > point.value)
        if (moved == moving).all():
            return trial, moved
        size[moving & ~moved] /= 2
    else:  # some problems have risen, the others never will
        theta = np.where(moved[:, None], trial.theta, point.theta)
        logp = np.where(moved[:, None], trial.logp, point.logp)
        return Point(theta, logp, np.where(moved, trial.value, point.value)), moved
    return point, moving
