"""The minimum of a loss by SciPy's L-BFGS, with a dict of arrays in place of one vector.

The papers use gradient descent with a fixed learning rate, and where epochs are compared so do we
(`moe_np.mixtures.jacobs1991.train`). Where only the minimum matters, because models are compared by
what they can fit, L-BFGS needs no learning rate.
"""

from collections.abc import Callable
from typing import NamedTuple

from moe_np.base.machine import one_blas_thread
from moe_np.base.params import flatten, unflatten
from moe_np.base.types import Params

LossAndGrads = Callable[[Params], tuple[float, Params]]


class Minimum(NamedTuple):
    """The parameters at which the minimiser stopped, and their loss."""

    params: Params
    loss: float
    evaluations: int
    converged: bool  # False: it stopped at `max_iter`


def minimise(
    loss_and_grads: LossAndGrads, params: Params, *, max_iter: int = 500, tolerance: float = 1e-5
) -> Minimum:
    """Minimise from the initial `params` by L-BFGS (Nocedal 1980).

    loss_and_grads   a function from parameters to (loss, gradients with the same keys)
    tolerance        bound of the largest component of the gradient: it depends on the scale of the
                     loss
    """
    from scipy.optimize import minimize

    def loss_and_gradient(vector):
        loss, grads = loss_and_grads(unflatten(vector, params))
        return loss, flatten(grads, like=params)

    options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "maxcor": 20}
    options |= {"gtol": tolerance, "ftol": 1e-12}
    with one_blas_thread():  # two threads add up in another order, and wait for each other
        result = minimize(
            loss_and_gradient, flatten(params), jac=True, method="L-BFGS-B", options=options
        )
    converged = bool(result.success)
    return Minimum(unflatten(result.x, params), float(result.fun), int(result.nfev), converged)
