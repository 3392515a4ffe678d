"""The linear map of a router, logits = x · w, forward and backward."""

import numpy as np

from moe_np import kernels
from moe_np.base.checks import InputError
from moe_np.base.machine import product
from moe_np.base.types import ArrayDE, ArrayND, ArrayNE

LARGE = 1 << 18  # multiplications from which on the compiled product is used


def linear(x: ArrayND, w: ArrayDE, name: str = "w") -> ArrayNE:
    """logits = x · w, with the same bits for any number of BLAS threads. Raises InputError where
    finite x and w have a product that is not finite.

    name   of w in params, for the message
    """
    with np.errstate(over="ignore", invalid="ignore"):
        logits = product(x, w)
    check_logits(logits, name)
    return logits


def check_logits(logits: ArrayNE, name: str = "w") -> None:
    """Check that the logits are finite: x and w may be so and their product overflow."""
    if not np.isfinite(logits).all():
        raise InputError(
            f"x: wanted numbers whose product with params[{name!r}] is below "
            f"{np.finfo(logits.dtype).max:.1e}, the largest of {logits.dtype}, got larger ones"
        )


def linear_backward(dlogits: ArrayNE, x: ArrayND, w: ArrayDE) -> tuple[ArrayND, ArrayDE]:
    """Backward of logits = x · w: dlogits (N, E) -> dx (N, D), dw (D, E)."""
    is_large = x.size * w.shape[1] >= LARGE
    if is_large and dlogits.dtype == x.dtype == w.dtype and kernels.compiled(x.dtype):
        return kernels.top_k.linear_backward(dlogits, x, w)
    return product(dlogits, w.T), product(x.T, dlogits)
