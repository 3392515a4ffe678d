"""A net with one hidden layer, trained by backpropagation: the rival of the mixture of 1991.

R. A. Jacobs, M. I. Jordan, S. J. Nowlan and G. E. Hinton (1991), Adaptive mixtures of local
experts, Neural Computation 3:79-87, compare their mixture (jacobs1991.py) with such nets.

    here          shape     meaning
    x, d          (N, D), (N, C)  inputs and targets
    W, b          (D, H), (H,)    into the hidden layer
    V, c          (H, C), (C,)    out of it
    hidden        (N, H)    outputs of the hidden units
    y             (N, C)    output of the net
    kind                    output units: "logistic", "linear" or "softmax"; mixtures share them
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import sigmoid, sigmoid_backward, softmax, softmax_backward
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, ArrayNH, Params, Rng

OUTPUT_UNITS = ("logistic", "linear", "softmax")


def squash(totals: Array, kind: str) -> Array:
    """Outputs of units with these total inputs; a softmax is over the last axis."""
    return {"logistic": sigmoid, "linear": np.copy, "softmax": softmax}[kind](totals)


def squash_backward(dout: Array, out: Array, kind: str) -> Array:
    """Gradient with respect to the total inputs, from the units' outputs."""
    if kind == "linear":
        return dout
    return sigmoid_backward(dout, out) if kind == "logistic" else softmax_backward(dout, out)


class NetCache(NamedTuple):
    x: ArrayND
    W: Array
    V: Array
    hidden: ArrayNH
    y: ArrayNC
    residual: ArrayNC  # d − y
    kind: str


def net_forward(
    params: Params, x: ArrayND, d: ArrayNC, kind: str = "logistic"
) -> tuple[ArrayN, NetCache]:
    """Logistic hidden units, output units of `kind`, E = ½ ‖d − y‖²: (loss (N,), cache)."""
    hidden = sigmoid(x @ params["W"] + params["b"])
    y = squash(hidden @ params["V"] + params["c"], kind)
    residual = d - y
    cache = NetCache(x, params["W"], params["V"], hidden, y, residual, kind)
    return 0.5 * (residual**2).sum(axis=1), cache


def net_backward(dloss: ArrayN, cache: NetCache) -> tuple[ArrayND, Params]:
    """(dx, grads) by backpropagation, the output layer first. d is not differentiated."""
    dout = squash_backward(-dloss[:, None] * cache.residual, cache.y, cache.kind)
    din = sigmoid_backward(dout @ cache.V.T, cache.hidden)
    grads = {
        "W": cache.x.T @ din,
        "b": din.sum(axis=0),
        "V": cache.hidden.T @ dout,
        "c": dout.sum(axis=0),
    }
    return din @ cache.W.T, grads


def net_predict(params: Params, x: ArrayND, kind: str = "logistic") -> ArrayNC:
    """The output y of the net."""
    return squash(sigmoid(x @ params["W"] + params["b"]) @ params["V"] + params["c"], kind)


def init_net(rng: Rng, H: int, D: int = 2, C: int = 1, *, init_range: float = 0.05) -> Params:
    """Initialisation of a net: all weights and biases uniform in ±init_range."""
    for name, size in (("H", H), ("D", D), ("C", C)):
        checks.size(name, size)
    init_range = checks.number("init_range", init_range, minimum=0)
    checks.generator("rng", rng)
    first = rng.uniform(-init_range, init_range, (H, D + 1))
    second = rng.uniform(-init_range, init_range, (C, H + 1))
    return {
        "W": first[:, :D].T.copy(),
        "b": first[:, D].copy(),
        "V": second[:, :H].T.copy(),
        "c": second[:, H].copy(),
    }
