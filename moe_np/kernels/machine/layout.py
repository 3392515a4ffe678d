"""Arrays in the layout of the compiled loops, and back in the layout of the equations.

In the loops of `jacobs1991` and `nowlan1991` one row of an array is one unit on all cases, so that
each inner loop runs over cases and becomes vector instructions. A bias is the weight of a last
input that is always 1. Cases are padded to a multiple of 8 with inputs that are all 0, the last
input too, so the padding adds 0 to every sum.
"""

from typing import Annotated

import numpy as np

from moe_np.base.types import Array, Params

LANES = 8  # numbers in the widest vector: a sum over cases has as many parts (`units.dots`)


def unit_rows(a: Array, last: float) -> Annotated[np.ndarray, "J + 1, N padded"]:
    """a (N, J) transposed, with a last row that is `last` on cases and 0 at the padding."""
    n = -(-len(a) // LANES) * LANES
    out = np.zeros((a.shape[1] + 1, n))
    out[:-1, : len(a)] = a.T
    out[-1, : len(a)] = last
    return out


def join_bias(weights: Array, bias: Array) -> Array:
    """weights (..., J) and bias (...) as (..., J + 1), the bias last.

    In C order whatever the order of the weights, so that one compiled version is enough.
    """
    return np.ascontiguousarray(np.concatenate([weights, bias[..., None]], axis=-1))


def split_bias(first: Array, second: Array, second_name: str) -> Params:
    """The parameters by the names and in the shapes of the equations; more axes in front are kept.

    first         W and b: of the experts of a mixture, or of the hidden units of a net
    second        U and c of the gating network, or V and c of the output units
    second_name   "U" or "V"
    """
    return {
        "W": np.ascontiguousarray(first[..., :-1].swapaxes(-1, -2)),
        "b": first[..., -1].copy(),
        second_name: np.ascontiguousarray(second[..., :-1].swapaxes(-1, -2)),
        "c": second[..., -1].copy(),
    }
