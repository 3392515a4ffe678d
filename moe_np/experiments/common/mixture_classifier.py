"""A classifier that is one sparse layer: every expert is a network from the inputs to the classes.

    logits_n = p_i(x_n) E_i(x_n),   i = argmax p(x_n),   p = softmax(x W)
    E_i(x)   = relu(x W1_i + b1_i) W2_i + b2_i

    paper                          here          shape        meaning
    Chen et al. 2022, eq. 3.1      "router"      w (D, E)     a linear gating network, top-1
    f_m                            "experts"     axis 0: E    one network each
    –                              x, y          (N, D), (N,) inputs, numbers of classes

Without a router there is one expert and the weight 1: an ordinary network with one hidden layer.
The loss is the cross-entropy and, with experts, Switch's load-balancing loss.

The initial scale of the router is a tenth of the usual one (Fedus et al. 2021, section 2.4), and
the coefficient of the load-balancing loss ten times theirs. Of six settings these two had the least
validation loss, on `digits in four rotations` of two seeds that no experiment uses; with the usual
ones three of eight experts were in use.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.types import ArrayN, ArrayNC, ArrayND, Rng
from moe_np.experiments.common import small_decoders
from moe_np.experiments.common.dense_and_mixture import Shape
from moe_np.layers import balance, cross_entropy, mixture_layer
from moe_np.layers.experts import RELU
from moe_np.routing import top_k
from moe_np.training import loop

K = 1  # experts per case
OPTIONS = {"k": K, "renormalise": False}
ROUTER = mixture_layer.router_of("top_k")
SWITCH_LOSS = ((0.1, balance.switch),)
SCALE = 0.1  # of the router at initialisation


class Data(NamedTuple):
    """Inputs and classes of one part: training, validation or test."""

    x: ArrayND  # (N, D) float32
    y: ArrayN  # (N,) int64


class Loss(NamedTuple):
    """What a minibatch measured, as the training loop wants it."""

    task: float
    tokens: int  # cases


class Trained(NamedTuple):
    """A classifier with the least validation loss."""

    params: Any
    learning_rate: float
    validation_loss: float


def init(rng: Rng, d_in: int, classes: int, shape: Shape) -> dict[str, Any]:
    """{"experts", and with several of them "router"}, float32."""
    sizes = (d_in, shape.experts, shape.hidden, classes)
    params: dict[str, Any] = {"experts": RELU.init(rng, *sizes, dtype=np.float32)}
    if shape.experts > 1:
        sizes = (d_in, shape.experts)
        params["router"] = top_k.init(rng, *sizes, scale=SCALE, dtype=np.float32)
    return params


def forward(params: dict[str, Any], x: ArrayND) -> tuple[ArrayNC, mixture_layer.Cache]:
    """x (N, D) -> (logits (N, C), cache)."""
    return mixture_layer.forward(params, x, expert=RELU, router=ROUTER, options=OPTIONS)


def loss_and_grads(params: dict[str, Any], data: Data) -> tuple[Loss, dict[str, Any]]:
    """The mean cross-entropy in nats, and the gradients with the load-balancing loss.

    The choice of the expert is not differentiated.
    """
    logits, cache = forward(params, data.x)
    value, entropy = cross_entropy.forward(logits, data.y)
    added = mixture_layer.balance_loss(SWITCH_LOSS, cache)
    _, grads = mixture_layer.backward(cross_entropy.backward(1.0, entropy), cache, added)
    return Loss(float(value), len(data.y)), grads


def loss_on(params: dict[str, Any], data: Data) -> float:
    """The mean cross-entropy, nats per case."""
    return float(cross_entropy.forward(forward(params, data.x)[0], data.y)[0])


def accuracy(params: dict[str, Any], data: Data) -> float:
    """Percent right."""
    return 100 * float((forward(params, data.x)[0].argmax(axis=1) == data.y).mean())


def expert_of(params: dict[str, Any], x: ArrayND) -> ArrayN:
    """The expert of each case."""
    routing = forward(params, x)[1].routing
    out = np.empty(len(x), np.int64)
    out[routing.token] = routing.expert
    return out


def trained(
    params_of: Callable[[], dict[str, Any]],
    train: Data,
    validation: Data,
    *,
    learning_rates: tuple[float, ...],
    updates: int,
    batch: int,
    every: int,
    seed: int,
) -> Trained:
    """Train once per learning rate and keep what has the least validation loss of all."""

    def minibatch_of(rng):
        rows = rng.integers(0, len(train.y), batch)
        return Data(train.x[rows], train.y[rows])

    outcomes = []
    for rate in learning_rates:
        curve = small_decoders.further(
            params_of(),
            lambda params, minibatch, rng: loss_and_grads(params, minibatch),
            minibatch_of,
            lambda params: loss_on(params, validation),
            loop.Options(updates, rate, seed=seed),
            every=every,
        )
        outcomes.append(Trained(curve.best, rate, min(curve.validation)))
    return min(outcomes, key=lambda outcome: outcome.validation_loss)
