"""A dict of arrays as one vector, for SciPy's quasi-Newton method: where only the minimum counts
and not the way there.

The papers descend with fixed steps, and where epochs are compared so do we
(`moe_np.mixtures.jacobs1991.train`). For comparing what models *can* fit, L-BFGS takes the step
size out of the question.
"""

from typing import NamedTuple

from moe_np.base.machine import one_blas_thread
from moe_np.base.params import flatten, unflatten


class Minimum(NamedTuple):
    params: dict
    loss: float
    evaluations: int
    converged: bool  # False: it stopped at `max_iter`


def minimise(loss_and_grads, params, *, max_iter=500, tolerance=1e-5):
    """Minimise from `params` by L-BFGS (Nocedal 1980; SciPy's). loss_and_grads(params) -> (number,
    grads).

    `tolerance` is on the largest component of the gradient, so it depends on the scale of the loss.
    Returns a Minimum.
    """
    from scipy.optimize import minimize

    def value(vector):
        loss, grads = loss_and_grads(unflatten(vector, params))
        return loss, flatten(grads, like=params)

    options = {
        "maxiter": max_iter,
        "maxfun": 2 * max_iter,
        "gtol": tolerance,
        "ftol": 1e-12,
        "maxcor": 20,
    }
    with one_blas_thread():  # two threads add up in another order, and wait for each other
        found = minimize(value, flatten(params), jac=True, method="L-BFGS-B", options=options)
    return Minimum(
        unflatten(found.x, params), float(found.fun), int(found.nfev), bool(found.success)
    )
