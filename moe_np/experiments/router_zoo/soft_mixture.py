"""The soft mixture of the router zoo: `moe_np.layers.soft_moe` in the place of router and layer.

It has no list of assignments, so it is not a router. Here are the functions of
`moe_np.models.associative_memory` that differ for it, under the same names. Its sequences are
groups of keys that stand beside each other in a minibatch, by chance.
"""

from typing import Any

import numpy as np

from moe_np.base.types import ArrayN, ArrayND, Params, Rng
from moe_np.layers import soft_moe
from moe_np.layers.experts import RELU
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Parts, RouterSetup, TrainStep

SEQUENCE = 64  # keys of a sequence


def init_from_keys(rng: Rng, keys: ArrayND, n_experts: int) -> Params:
    """As many slots per sequence as a top-2 router has assignments."""
    slots = -(-2 * SEQUENCE // n_experts)
    return soft_moe.init(rng, keys.shape[1], n_experts, slots)


def _forward(params, x):
    """x (N, D) -> out (N, D), cache."""
    sequences = x.reshape(-1, SEQUENCE, x.shape[1])
    out, cache = soft_moe.forward(params["router"], params["experts"], sequences, RELU)
    return out.reshape(x.shape), cache


def train_step(
    setup: RouterSetup,
    params: Parts,
    state: dict | None,
    x: ArrayND,
    y: ArrayN,
    ids: ArrayN,
    *,
    lr: float,
    rng: Rng | None,
) -> TrainStep:
    """One step of Adam, as `associative_memory.train_step`; there is no load-balancing loss."""
    N, D = x.shape
    out, cache = _forward(params, x)
    token_loss, values_cache = associative_memory.values_forward(params["values"], x + out, y)
    dloss = np.full(N, 1 / N, x.dtype)
    dh, dvalues = associative_memory.values_backward(dloss, values_cache)
    dout = dh.reshape(-1, SEQUENCE, D)
    _, drouter, dexperts = soft_moe.backward(dout, cache)
    grads = {"router": drouter, "experts": dexperts, "values": dvalues}
    params, state = associative_memory.update(params, grads, state, lr)
    return TrainStep(params, state, float(token_loss.mean()), 0.0, None)


def predict(
    setup: RouterSetup,
    params: Parts,
    x: ArrayND,
    ids: ArrayN,
    *,
    rng: Rng | None = None,
    **options: Any,
) -> tuple[ArrayND, None]:
    """h (N, D), and None in the place of a Routing."""
    out, _ = _forward(params, x)
    return x + out, None
