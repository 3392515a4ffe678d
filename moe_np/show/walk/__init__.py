"""Walks: what the package computes, one operation at a time, with every intermediate named.

Each returns `moe_np.show.steps.Steps`:

    vowels(params, x, d, lr=...)         the mixture of 1991: forward, backward, update
    em(x, y, E, ...)                     E steps and M steps
    route(router, params, x, ...)        any router: logits, choice, weights, rows, and backward
    layer(params, x, routing, expert)    the sparse layer: dispatch, experts, combine, backward
    dispatch(routing)                    the counting sort alone
    balance(name, routing)               a load-balancing loss and its gradient
    training(trainer)                    any iterator of training steps
    transformer(params, ids, ...)        a whole decoder: embedding to loss, and back
    lstm(params, x, ...)                 an LSTM, gate by gate, and back through time
    exchange(ranks)                      a step of the layer over ranks: who sends what to whom

A walk calls the functions that it shows wherever they return the intermediate; what it adds is
tested to be equal.
"""

from moe_np.show.walk.dispatch import dispatch, layer
from moe_np.show.walk.exchange import exchange
from moe_np.show.walk.losses import balance
from moe_np.show.walk.lstm import lstm
from moe_np.show.walk.mixture import vowels
from moe_np.show.walk.routers import route
from moe_np.show.walk.runs import em, training
from moe_np.show.walk.transformer import transformer

__all__ = [
    "balance",
    "dispatch",
    "em",
    "exchange",
    "layer",
    "lstm",
    "route",
    "training",
    "transformer",
]
__all__ += ["vowels"]
