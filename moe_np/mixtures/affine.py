"""The affine map x W_e + b_e of all experts of a mixture, and its gradient.

    here      shape                    meaning
    W, b      (E, D, C), (E, C)        slopes and constants
    coef      (E, D + 1, C)            the same in one array, the constants in the last row
    design                             the inputs, as `least_squares.make_design(x)` prepares them

Arrays (E, C, N) have the cases contiguous in memory, which makes sums over the experts fast.
"""

from typing import Annotated

import numpy as np

from moe_np.base.types import Params
from moe_np.mixtures.least_squares import Coef, Design

ArrayECN = Annotated[np.ndarray, "E, C, N"]


def affine(params: Params, design: Design) -> ArrayECN:
    """x W_e + b_e of all experts, (E, C, N)."""
    W = params["W"]
    b = params["b"] + design.mean @ W  # the design is about the mean of x
    E, D, C = W.shape
    out = W.transpose(0, 2, 1).reshape(E * C, D) @ design.xt[:-1]
    out += b.reshape(E * C, 1)
    return out.reshape(E, C, -1)


def affine_backward(dout: ArrayECN, design: Design) -> Params:
    """{"W", "b"} from dout (E, C, N). There is no gradient with respect to x."""
    E, C, N = dout.shape
    flat = (dout.reshape(E * C, N) @ design.xt.T).reshape(E, C, -1)
    db = flat[:, :, -1]
    dW = flat[:, :, :-1].transpose(0, 2, 1) + design.mean[:, None] * db[:, None, :]
    return {"W": dW, "b": db}


def unpack(coef: Coef) -> Params:
    """(E, D + 1, C) -> {"W": (E, D, C), "b": (E, C)}."""
    return {"W": coef[:, :-1], "b": coef[:, -1]}


def pack(params: Params | None) -> Coef | None:
    """The inverse of `unpack`; None stays None."""
    return None if params is None else np.hstack([params["W"], params["b"][:, None, :]])
