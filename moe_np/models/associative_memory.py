"""An associative memory around one sparse layer: small enough to train every router on it.

    h = x + layer(x),   scores = h·W + b,   loss = mean of −log softmax(scores)_y

    here      shape     meaning
    keys      (M, D)    Gaussian vectors, drawn once; x (N, D) is a minibatch of them, ids (N,)
                        their numbers
    labels    (M,)      what to remember of each key: K values, drawn uniformly; y (N,)
    layer               E experts, D to H (ReLU) to D; a token that no expert takes keeps h = x
    W, b      (D, K)    the values, learned as well
    router              any module of `moe_np.routing`

There is nothing to generalise, hence no test set: for a key that was not stored, a perplexity of K,
that of chance, is the best possible. How low the perplexity of the stored keys gets shows how much
of the capacity of the experts a router puts to use.

A `RouterSetup` holds all that differs from one router to the next. `gradients` is the same for all
of them: route, layer, loss, and the backward passes of the three.
"""

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks, numerics, optim
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, DType, Options, Params, Rng
from moe_np.layers import balance, diagnostics, sparse_layer
from moe_np.layers.balance import BalanceLoss
from moe_np.layers.experts import RELU
from moe_np.routing.contract import Router, Routing

Parts = dict[str, Params]  # the parameters of "router", "experts" and "values", or their gradients


def associations(
    rng: Rng,
    n_keys: int,
    d_model: int,
    n_values: int,
    *,
    common: float = 0.0,
    dtype: DType = np.float32,
) -> tuple[ArrayND, ArrayN]:
    """What to remember: keys (M, D) standard normal, and labels (M,) uniform from 0 to K − 1.

    One vector of length `common` is added to all keys.
    """
    M = checks.integer("n_keys", n_keys)
    D = checks.integer("d_model", d_model)
    K = checks.integer("n_values", n_values)
    keys = rng.normal(size=(M, D))
    labels = rng.integers(K, size=M)
    shared = rng.normal(size=D)
    return (keys + common * shared / np.linalg.norm(shared)).astype(dtype), labels


# --- what differs between routers -----------------------------------------------------------------


class Forward(NamedTuple):
    """What a forward pass gives to the losses of a router."""

    routing: Routing
    cache: Any  # of the router
    token_loss: ArrayN


NO_OPTIONS: Options = types.MappingProxyType({})


class RouterSetup(NamedTuple):
    """A router and how it is trained. To try another router, write one more of these."""

    router: Router
    options: Options = NO_OPTIONS  # of `route`
    init_options: Options = NO_OPTIONS  # of `init`
    # the load-balancing losses with their coefficients, as `balance.total` takes them
    losses: Callable[[Forward], Iterable[tuple[float, BalanceLoss]]] | None = None
    # (rng, keys, n_experts) -> parameters of the router, in place of its `init`
    init_from_keys: Callable[[Rng, ArrayND, int], Params] | None = None
    # (parameters, routing) -> parameters, after each step, for what moves without a gradient
    after_step: Callable[[Params, Routing], Params] | None = None
    token_ids: bool = False  # `route` takes the ids of the tokens, and n_experts


def init(
    rng: Rng, setup: RouterSetup, keys: ArrayND, n_values: int, *, n_experts: int, hidden: int
) -> Parts:
    """Initialisation of the whole memory, in the dtype of the keys:

    {"router": {...}, "experts": {...}, "values": {"w": (D, K), "b": (K,)}}
    """
    D, K = keys.shape[1], checks.integer("n_values", n_values)
    if setup.init_from_keys is not None:
        router = setup.init_from_keys(rng, keys, n_experts)
    else:
        router = setup.router.init(rng, D, n_experts, **setup.init_options)
    experts = RELU.init(rng, D, n_experts, hidden)
    values = {"w": rng.normal(size=(D, K)) / np.sqrt(D), "b": np.zeros(K)}
    parts = {"router": router, "experts": experts, "values": values}
    return {
        part: {name: _as(keys.dtype, p) for name, p in params.items()}
        for part, params in parts.items()
    }


def _as(dtype, p):
    return p.astype(dtype) if p.dtype.kind == "f" else p  # a hash table keeps its integers


def route(
    setup: RouterSetup, params: Parts, x: ArrayND, ids: ArrayN, **options: Any
) -> tuple[Routing, Any]:
    """The Routing of x (N, D) and the cache; `options` are added to those of the setup."""
    options = {**setup.options, **options}
    if setup.token_ids:
        options = {**options, "ids": ids, "n_experts": len(params["experts"]["w1"])}
    return setup.router.route(params["router"], x, **options)


# --- values ---------------------------------------------------------------------------------------


class ValuesCache(NamedTuple):
    w: Array  # (D, K)
    h: ArrayND
    y: ArrayN
    probs: ArrayNC  # (N, K)


def values_forward(params: Params, h: ArrayND, y: ArrayN) -> tuple[ArrayN, ValuesCache]:
    """−log softmax(h·W + b)_y in nats: h (N, D), y (N,) -> token_loss (N,), cache."""
    log_p = numerics.log_softmax(h @ params["w"] + params["b"])
    return -log_p[np.arange(len(y)), y], ValuesCache(params["w"], h, y, np.exp(log_p))


def values_backward(dloss: ArrayN, cache: ValuesCache) -> tuple[ArrayND, Params]:
    """dloss (N,) -> dh (N, D), {"w", "b"}."""
    w, h, y, probs = cache
    dscores = probs * dloss[:, None]
    dscores[np.arange(len(y)), y] -= dloss
    return dscores @ w.T, {"w": h.T @ dscores, "b": dscores.sum(axis=0)}


# --- training -------------------------------------------------------------------------------------


class Gradients(NamedTuple):
    grads: Parts
    token_loss: ArrayN  # nats
    balance: float  # the load-balancing losses with their coefficients
    routing: Routing


class TrainStep(NamedTuple):
    params: Parts
    state: dict | None  # of Adam, for each part
    loss: float  # nats, before the step
    balance: float  # the load-balancing losses with their coefficients
    routing: Routing | None  # None for a layer without a router


def gradients(
    setup: RouterSetup, params: Parts, x: ArrayND, y: ArrayN, ids: ArrayN, rng: Rng | None
) -> Gradients:
    """The gradients of the mean loss plus the load-balancing losses of the setup.

    x (N, D) are keys and y (N,) their labels, ids (N,) their numbers. Keys are data: their gradient
    is not wanted.
    """
    routing, router_cache = route(setup, params, x, ids, training=True, rng=rng)
    out, layer_cache = sparse_layer.forward(params["experts"], x, routing, RELU)
    token_loss, values_cache = values_forward(params["values"], x + out, y)

    dloss = np.full(len(x), 1 / max(len(x), 1), x.dtype)
    dh, dvalues = values_backward(dloss, values_cache)
    _, dexperts, dweight = sparse_layer.backward(dh, layer_cache)
    forward = Forward(routing, router_cache, token_loss)
    added = balance.total(() if setup.losses is None else setup.losses(forward))
    drouter = _router_backward(setup.router, dweight, added, router_cache)
    grads = {"router": drouter, "experts": dexperts, "values": dvalues}
    return Gradients(grads, token_loss, added.value, routing)


def _router_backward(router, dweight, added, cache):
    """dweight (A,) of the task and a BalanceLoss -> the gradients of the router's parameters."""
    if added.dweight is not None:
        dweight = dweight + added.dweight
    dload = {} if added.dload is None else {"dload": added.dload}
    _, drouter = router.route_backward(dweight, added.dlogits, cache, **dload)
    if added.dthreshold is not None:
        drouter = {**drouter, "threshold": added.dthreshold}
    return drouter


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
    """One step of Adam; the arguments are those of `gradients`. No argument is changed in place."""
    grads, token_loss, added, routing = gradients(setup, params, x, y, ids, rng)
    params, state = update(params, grads, state, lr)
    if setup.after_step is not None:
        params = {**params, "router": setup.after_step(params["router"], routing)}
    return TrainStep(params, state, float(token_loss.mean()), added, routing)


def update(params: Parts, grads: Parts, state: dict | None, lr: float) -> tuple[Parts, dict]:
    """Adam on every part; what has no gradient, such as a hash table, stays. -> params, state."""
    state, moved = dict(state or {}), {}
    for part, g in grads.items():
        learned = {name: params[part][name] for name in g}
        learned, state[part] = optim.adam(learned, g, state.get(part), lr=lr)
        moved[part] = {**params[part], **learned}
    return moved, state


def train(
    setup: RouterSetup,
    params: Parts,
    keys: ArrayND,
    labels: ArrayN,
    *,
    epochs: int,
    batch: int,
    lr: float,
    rng: Rng,
    step: Callable[..., TrainStep] = train_step,
) -> Iterator[TrainStep]:
    """Shuffled minibatches; the learning rate falls from lr to 0 linearly. Yields each TrainStep.

    Order and noise have generators of their own, so that the same rng gives every router the same
    minibatches. `step` takes the place of `train_step` for a layer without a router.
    """
    M, state, n = len(keys), None, 0
    order_rng, noise_rng = rng.spawn(2)
    if not 1 <= checks.integer("batch", batch) <= M:
        raise InputError(f"batch: wanted at most the {M} keys there are, got {batch}")
    n_steps = epochs * (M // batch)
    for _ in range(epochs):
        order = order_rng.permutation(M)
        for i in range(M // batch):
            ids = order[i * batch : (i + 1) * batch]
            rate = lr * (1 - n / n_steps)
            result = step(setup, params, state, keys[ids], labels[ids], ids, lr=rate, rng=noise_rng)
            params, state, n = result.params, result.state, n + 1
            yield result


# --- evaluation -----------------------------------------------------------------------------------


def predict(
    setup: RouterSetup,
    params: Parts,
    x: ArrayND,
    ids: ArrayN,
    *,
    rng: Rng | None = None,
    **options: Any,
) -> tuple[ArrayND, Routing | None]:
    """h (N, D) and the Routing; `rng` adds the noise of the router, `options` change `route`."""
    routing, _ = route(setup, params, x, ids, rng=rng, **options)
    out, _ = sparse_layer.forward(params["experts"], x, routing, RELU)
    return x + out, routing


def measure(
    setup: RouterSetup,
    params: Parts,
    keys: ArrayND,
    labels: ArrayN,
    *,
    batch: int,
    rng: Rng | None = None,
    predict: Callable[..., tuple[ArrayND, Routing | None]] = predict,
    **options: Any,
) -> dict[str, float]:
    """Perplexity of all keys and how the router uses its experts, as means over batches.

    cv and max_mean are of what tokens asked for, before any capacity; dropped is the share of that
    which found no place, unserved the share of tokens without any expert, experts the number of
    experts per token. `rng` and `options` as in `predict`, which a layer without a router replaces.
    """
    losses, uses = [], []
    for first in range(0, len(keys), batch):
        ids = np.arange(first, min(first + batch, len(keys)))
        h, routing = predict(setup, params, keys[ids], ids, rng=rng, **options)
        losses.append(values_forward(params["values"], h, labels[ids])[0])
        if routing is not None:
            uses.append(usage(routing))
    names = uses[0] if uses else ()
    means = {name: float(np.mean([use[name] for use in uses])) for name in names}
    return {"perplexity": float(np.exp(np.concatenate(losses).mean(dtype=np.float64))), **means}


def usage(routing: Routing) -> dict[str, float]:
    """How evenly and how fully one batch uses the experts; the names are those of `measure`."""
    requests = diagnostics.demand(routing)
    return {
        "cv": diagnostics.cv(requests),
        "max_mean": diagnostics.max_over_mean(requests),
        "dropped": diagnostics.dropped_share(routing),
        "unserved": diagnostics.unserved_share(routing),
        "experts": len(routing.token) / max(len(routing.demand), 1),
    }
