"""Weighted least squares for a stack of regressions on the same inputs: Gaussian experts' M step.

Jordan and Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural Computation
6:181-214, section 4. A stack is all experts of a mixture, or all gates of one level of a tree. Its
problems share their inputs and differ in their weights, so the sums Σ_n weight_n x_n x_nᵀ of the
whole stack are one matrix product. irls.py has the logistic regressions, from the same sums.

    here        shape             meaning
    x           (N, D)            inputs, or the `Design` that `make_design(x)` computes once
    weight      (N, M)            weight of each case in each problem of the stack
    coef        (M, D + 1, C)     slopes, and the constants in the last row

Sums are in float64 and about the mean of x. The ridge penalty (weight decay) is ½ ridge ‖slopes‖²;
the constants are not penalised.
"""

import functools
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import ArrayD, ArrayN, ArrayNC, ArrayND

ArrayNM = Annotated[np.ndarray, "N, M"]
Coef = Annotated[np.ndarray, "M, D + 1, C"]

MAX_PRODUCTS = 1 << 23  # numbers (64 MB): up to this many, the products of the inputs are kept
CONSTANT = 16 * np.finfo(float).eps  # an input with a range below this part of its size is constant
LARGEST = 1e150  # in size: the square root of the largest number, and some room for sums
SINGULAR = 1e-6  # a pivot √(1 − R²) of an input on the others below this counts as 0


class Design(NamedTuple):
    """The inputs (design matrix), prepared for many regressions on them."""

    xt: Annotated[np.ndarray, "D + 1, N"]  # inputs less their mean, one per row; the last row is 1
    # products of every two rows of xt, P = (D + 1)(D + 2) / 2; None where they would be too large
    products: Annotated[np.ndarray, "P, N"] | None
    mean: ArrayD


def make_design(x: ArrayND | Design) -> Design:
    """The `Design` of x (N, D). A Design is returned as it is."""
    if isinstance(x, Design):
        return x
    x = checks.array("x", x, ("N", "D")).astype(np.float64)
    check_magnitude("x", x)
    N, D = x.shape
    mean = x.mean(axis=0) if N else np.zeros(D)
    xt = np.ones((D + 1, N))
    xt[:D] = (x - mean).T
    xt[:D][is_constant(x)] = (
        0  # what is left of a constant input after subtracting its mean is rounding
    )
    products = None
    if N * (D + 1) * (D + 2) // 2 <= MAX_PRODUCTS:
        products = np.concatenate([xt[k] * xt[k:] for k in range(D + 1)])
    return Design(xt, products, mean)


def is_constant(x: ArrayND) -> Annotated[np.ndarray, "D"]:
    """(D,) bool: the columns of x (N, D) that do not vary by more than rounding."""
    extent = x.max(axis=0, initial=-np.inf) - x.min(axis=0, initial=np.inf)
    return extent <= CONSTANT * np.abs(x).max(axis=0, initial=0)


def weighted_variance(y: ArrayNC, weight: ArrayN | None = None) -> Annotated[np.ndarray, "C"]:
    """Σ_n w_n (y_n − ȳ)² / Σ_n w_n of every column, ȳ the mean with the same weights; None is 1."""
    if weight is None:
        return y.var(axis=0)
    mean = np.average(y, axis=0, weights=weight)
    return np.average((y - mean) ** 2, axis=0, weights=weight)


def check_magnitude(name: str, x: ArrayND) -> None:
    """Check that sums of squares of x are finite numbers."""
    largest = np.abs(x).max(initial=0)
    if largest > LARGEST:
        raise checks.InputError(
            f"{name}: wanted numbers of at most {LARGEST:g}, got {largest:g}: sums of their "
            "squares would overflow"
        )


def gram(
    design: Design, weight: Annotated[np.ndarray, "M, N"]
) -> Annotated[np.ndarray, "M, D + 1, D + 1"]:
    """Σ_n weight_mn x_n x_nᵀ of every problem m: weight (M, N) -> (M, D + 1, D + 1)."""
    K = len(design.xt)
    M = len(weight)
    if design.products is None:
        sums = [(design.xt * w) @ design.xt.T for w in weight]
        return np.stack(sums) if M else np.zeros((0, K, K))
    packed = weight @ design.products.T
    i, j = _pairs(K)
    out = np.empty((M, K, K))
    out[:, i, j] = out[:, j, i] = packed
    return out


@functools.cache
def _pairs(K):
    return np.triu_indices(K)


def solve(
    a: Annotated[np.ndarray, "M, K, K"], b: Annotated[np.ndarray, "M, K, C"]
) -> Annotated[np.ndarray, "M, K, C"]:
    """z with a z = b, for symmetric positive semidefinite a.

    Where a is singular, the z that is smallest in the coordinates in which a has the diagonal 1.
    """
    size = np.sqrt(np.einsum("mkk->mk", a))[:, :, None]
    size = np.where(size > 1e-75, size, np.inf)  # no curvature at all: no step in this direction
    a = a / (size * size.swapaxes(1, 2))
    b = b / size
    try:
        regular = np.einsum("mkk->mk", np.linalg.cholesky(a)).min(initial=1) > SINGULAR
    except np.linalg.LinAlgError:
        regular = False
    if regular:
        return np.linalg.solve(a, b) / size
    return np.linalg.pinv(a, rcond=SINGULAR**2, hermitian=True) @ b / size


def check_weight(weight: np.ndarray, shape: tuple) -> np.ndarray:
    """`weight` as an array, after checking its shape and that no weight is negative."""
    weight = checks.array("weight", weight, shape)
    if weight.size and weight.min() < 0:
        raise checks.InputError(f"weight: wanted no negative numbers, got {weight.min():g}")
    return weight


def from_centre(coef: Coef, mean: ArrayD) -> Coef:
    """Coefficients about the mean of x -> coefficients about 0. With −mean, the inverse."""
    coef = coef.copy()
    coef[..., -1, :] -= mean @ coef[..., :-1, :]
    return coef


@one_blas_thread()
def weighted_least_squares(
    x: ArrayND | Design,
    y: ArrayNC,
    weight: ArrayNM,
    ridge: float = 0.0,
    initial: Coef | None = None,
) -> Coef:
    """The coefficients that minimise, for every problem m of the stack,

        Σ_n weight_nm ‖y_n − coef_mᵀ (x_n, 1)‖² + ridge ‖slopes_m‖²

    by the normal equations on scaled inputs. The weights are not negative.

    initial    coefficients (M, D + 1, C); None is 0

    Collinear inputs, fewer cases than inputs, or a weight of 0 for all cases leave more than one
    solution: the result is the one nearest to `initial`, so the fit is never worse than `initial`.
    """
    design = make_design(x)
    K, N = design.xt.shape
    y = checks.array("y", y, (N, "C"))
    weight = check_weight(weight, (N, "M"))
    C = y.shape[1]
    M = weight.shape[1]
    a = gram(design, weight.T)
    a[:, range(K - 1), range(K - 1)] += checks.number("ridge", ridge, minimum=0)
    wy = np.multiply(weight.T[:, None, :], np.ascontiguousarray(y.T), order="C")  # (M, C, N)
    b = (wy.reshape(M * C, N) @ design.xt.T).reshape(M, C, K).swapaxes(1, 2)
    if initial is None:
        return from_centre(solve(a, b), design.mean)
    initial = from_centre(checks.array("initial", initial, (M, K, C)), -design.mean)
    return from_centre(initial + solve(a, b - a @ initial), design.mean)
