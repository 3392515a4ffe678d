"""An associative memory around one sparse layer: small enough to train every router on it, many
times over.

    h = x + layer(x),   scores = h·W + b,   loss = mean of −log softmax(scores)_y

    here      shape     meaning
    keys      (M, D)    Gaussian vectors, drawn once; x (N, D) is a minibatch of them, ids (N,) says of which
    labels    (M,)      what to remember of each key, one of K values drawn uniformly; y (N,)
    layer               E experts, D to H (ReLU) to D; a token that no expert takes keeps h = x
    W, b      (D, K)    the values, learned as well
    router              any file of `moe_np.routing`

There is nothing to generalise, hence no test set: of a key that was not stored nobody can know more
than chance, a perplexity of K. How low that of the stored keys gets says how much of the experts'
room a router puts to use.

A `Gate` holds all that differs from one router to the next. `gradients` is the same for all of
them: route, layer, loss, layer backward, router backward.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics, optim
from moe_np.base.checks import InputError
from moe_np.layers import balance, diagnostics, sparse_layer
from moe_np.layers.experts import RELU
from moe_np.routing import gradient_estimators, noisy_top_k, strictly_balanced
from moe_np.routing.contract import Routing


def associations(rng, n_keys, d_model, n_values, *, common=0.0, dtype=np.float32):
    """keys (M, D) standard normal, plus one vector of length `common` for all of them; labels (M,)
    uniform below K.
    """
    sizes = {"n_keys": n_keys, "d_model": d_model, "n_values": n_values}
    M, D, K = (checks.integer(name, size) for name, size in sizes.items())
    keys, labels, shared = rng.normal(size=(M, D)), rng.integers(K, size=M), rng.normal(size=D)
    return (keys + common * shared / np.linalg.norm(shared)).astype(dtype), labels


# --- what differs between routers -----------------------------------------------------------------


class Gate(NamedTuple):
    """A router and how it is trained. A new router is one more of these."""

    router: object  # module, or the like, with init, route, route_backward
    train: dict | Callable = {}  # noqa: RUF012 - options of `route`, or a function (ids, n_experts) -> options
    test: dict | Callable | None = None  # the same for evaluation, where it differs
    losses: tuple = ()  # pairs (coefficient, loss), loss(routing, cache, token_loss) -> Push
    start: dict = {}  # noqa: RUF012 - options of `init`
    prepare: Callable | None = None  # (rng, keys, n_experts) -> params, in place of `init`
    after: Callable | None = (
        None  # (params, routing) -> params, after each step: what moves without a gradient
    )
    n_experts: int | None = None  # in place of the experiment's
    hidden: int | None = None
    step: Callable | None = (
        None  # in place of `train_step`, for what is no router, with `predict` beside it
    )
    predict: Callable | None = None


class Push(NamedTuple):
    """What a balance loss gives: its value, and gradients to weights, logits, load, or straight to
    parameters.
    """

    value: float = 0.0
    dweight: np.ndarray | None = None  # (A,)
    dlogits: np.ndarray | None = None  # (N, E)
    dload: np.ndarray | None = None  # (E,), the load of noisy_top_k.py
    dthreshold: np.ndarray | None = None  # (E,), the threshold of strictly_balanced.py


def on_logits(loss, scale=lambda n_experts: 1):
    """A loss of moe_np.layers.balance, `loss(routing) -> (value, dlogits)`, as `Gate` wants it;
    times scale(E).
    """

    def push(routing, cache, token_loss):
        value, dlogits = loss(routing)
        times = scale(routing.probs.shape[1])
        return Push(times * value, dlogits=times * dlogits)

    return push


def importance(routing, cache, token_loss):
    """CV² of the importance (Shazeer et al. 2017, eq. 7)."""
    value, dweight = balance.importance(routing)
    return Push(value, dweight=dweight)


def load(routing, cache, token_loss):
    """CV² of the load (Shazeer et al. 2017, eq. 11). For noisy_top_k.py alone."""
    value, dload = balance.cv_squared(noisy_top_k.load_forward(cache)[0])
    return Push(value, dload=dload)


def threshold(routing, cache, token_loss):
    """Eq. (20) of Shazeer et al. 2017, a mean over tokens, to the thresholds alone. For
    strictly_balanced.py.
    """
    value, _, dthreshold = strictly_balanced.threshold_loss(cache)
    N = len(token_loss)
    return Push(value / N, dthreshold=dthreshold / N)


def reinforce(routing, cache, token_loss):
    """REINFORCE for estimators.py. The baseline is the mean loss of the others: a token's choice
    has no part in it.
    """
    N = len(token_loss)
    baseline = (token_loss.sum() - token_loss) / max(N - 1, 1)
    return Push(0.0, dlogits=gradient_estimators.reinforce(routing, token_loss / N, baseline / N))


def total(losses, routing, cache, token_loss):
    """Σ coefficient · loss, of values and of gradients, as one Push."""
    sums = {}
    for coefficient, loss in losses:
        for name, part in loss(routing, cache, token_loss)._asdict().items():
            if part is not None:
                sums[name] = sums.get(name, 0) + coefficient * part
    dtype = routing.weight.dtype
    return Push(**{name: s if name == "value" else s.astype(dtype) for name, s in sums.items()})


# --- parameters and values ------------------------------------------------------------------------


def init(rng, gate, keys, n_values, *, n_experts, hidden):
    """{"router": {...}, "experts": {...}, "values": {"w": (D, K), "b": (K,)}}, of the dtype of
    keys.
    """
    D, K = keys.shape[1], checks.integer("n_values", n_values)
    E, H = gate.n_experts or n_experts, gate.hidden or hidden
    if gate.prepare is not None:
        router = gate.prepare(rng, keys, E)
    else:
        router = gate.router.init(rng, D, E, **gate.start)
    params = {
        "router": router,
        "experts": RELU.init(rng, D, E, H),
        "values": {"w": rng.normal(size=(D, K)) / np.sqrt(D), "b": np.zeros(K)},
    }
    return {part: {k: _as(keys.dtype, p) for k, p in own.items()} for part, own in params.items()}


def _as(dtype, p):
    return p.astype(dtype) if p.dtype.kind == "f" else p  # a hash table stays what it is


class ValuesCache(NamedTuple):
    w: np.ndarray
    h: np.ndarray  # (N, D)
    y: np.ndarray  # (N,)
    probs: np.ndarray  # (N, K)


def values_forward(params, h, y):
    """−log softmax(h·W + b)_y: h (N, D), y (N,) -> token_loss (N,), cache."""
    log_p = numerics.log_softmax(h @ params["w"] + params["b"])
    return -log_p[np.arange(len(y)), y], ValuesCache(params["w"], h, y, np.exp(log_p))


def values_backward(dloss, cache):
    """dloss (N,) -> dh (N, D), {"w", "b"}."""
    w, h, y, probs = cache
    dscores = probs * dloss[:, None]
    dscores[np.arange(len(y)), y] -= dloss
    return dscores @ w.T, {"w": h.T @ dscores, "b": dscores.sum(axis=0)}


# --- training -------------------------------------------------------------------------------------


class Step(NamedTuple):
    params: dict
    state: dict | None  # of Adam
    loss: float  # nats, before the step
    balance: float  # the balance losses with their coefficients
    routing: Routing | None


def options(gate, ids, n_experts, training):
    """What `route` is told, in training or in evaluation."""
    chosen = gate.train if training or gate.test is None else gate.test
    return chosen(ids, n_experts) if callable(chosen) else chosen


def gradients(gate, params, x, y, ids, rng):
    """Of the mean loss plus the gate's balance losses: -> grads as params, token_loss (N,),
    balance, routing.
    """
    E, dloss = len(params["experts"]["w1"]), np.full(len(x), 1 / max(len(x), 1), x.dtype)
    routing, router_cache = gate.router.route(
        params["router"], x, **options(gate, ids, E, True), rng=rng
    )
    out, layer_cache = sparse_layer.forward(params["experts"], x, routing, RELU)
    token_loss, values_cache = values_forward(params["values"], x + out, y)  # x passes the layer by

    dh, dvalues = values_backward(dloss, values_cache)
    _, dexperts, dweight = sparse_layer.backward(
        dh, layer_cache
    )  # keys are data: their gradient goes nowhere
    push = total(gate.losses, routing, router_cache, token_loss)
    if push.dweight is not None:
        dweight = dweight + push.dweight
    more = {} if push.dload is None else {"dload": push.dload}
    _, drouter = gate.router.route_backward(dweight, push.dlogits, router_cache, **more)
    if push.dthreshold is not None:
        drouter = {**drouter, "threshold": push.dthreshold}
    return (
        {"router": drouter, "experts": dexperts, "values": dvalues},
        token_loss,
        float(push.value),
        routing,
    )


def train_step(gate, params, state, x, y, ids, *, lr, rng):
    """One step of Adam -> Step. Nothing that comes in is changed."""
    grads, token_loss, push, routing = gradients(gate, params, x, y, ids, rng)
    params, state = update(params, grads, state, lr)
    if gate.after is not None:
        params = {**params, "router": gate.after(params["router"], routing)}
    return Step(params, state, float(token_loss.mean()), push, routing)


def update(params, grads, state, lr):
    """Adam on every part; what has no gradient, a hash table, stays. -> params, state."""
    state, new = dict(state or {}), {}
    for part, g in grads.items():
        moved, state[part] = optim.adam({k: params[part][k] for k in g}, g, state.get(part), lr=lr)
        new[part] = {**params[part], **moved}
    return new, state


def train(gate, params, keys, labels, *, epochs, batch, lr, rng):
    """Shuffled minibatches; the step size falls from lr to 0 in a straight line. Yields each Step.

    Order and noise are drawn apart: the same rng gives every gate the same minibatches.
    """
    M, state, n = len(keys), None, 0
    shuffle, noise = rng.spawn(2)
    if not 1 <= checks.integer("batch", batch) <= M:
        raise InputError(f"batch: wanted at most the {M} keys there are, got {batch}")
    of, step = epochs * (M // batch), gate.step or train_step
    for _ in range(epochs):
        order = shuffle.permutation(M)
        for i in range(M // batch):
            ids = order[i * batch : (i + 1) * batch]
            done = step(
                gate, params, state, keys[ids], labels[ids], ids, lr=lr * (1 - n / of), rng=noise
            )
            params, state, n = done.params, done.state, n + 1
            yield done


# --- looking --------------------------------------------------------------------------------------


def predict(gate, params, x, ids, *, rng=None, **changed):
    """h (N, D) and the Routing; `rng` adds the router's noise, `changed` are other options of
    `route`.
    """
    told = {**options(gate, ids, len(params["experts"]["w1"]), False), **changed}
    routing, _ = gate.router.route(params["router"], x, **told, rng=rng)
    out, _ = sparse_layer.forward(params["experts"], x, routing, RELU)
    return x + out, routing


def measure(gate, params, keys, labels, *, batch, rng=None, **changed):
    """Perplexity of all keys and, as means over batches of that size, how the gate uses its
    experts: a dict.

    cv and max_mean are of what tokens asked for, before any capacity; dropped is the share of that
    which found no place, unserved the share of tokens without any expert, experts the number of
    experts a token got.
    """
    losses, seen = [], []
    for start in range(0, len(keys), batch):
        ids = np.arange(start, min(start + batch, len(keys)))
        h, routing = (gate.predict or predict)(gate, params, keys[ids], ids, rng=rng, **changed)
        losses.append(values_forward(params["values"], h, labels[ids])[0])
        if routing is not None:
            seen.append(usage(routing))
    means = {
        name: float(np.mean([one[name] for one in seen])) for name in (seen[0] if seen else ())
    }
    return {"perplexity": float(np.exp(np.concatenate(losses).mean(dtype=np.float64))), **means}


def usage(routing):
    asked = diagnostics.demand(routing)
    return {
        "cv": diagnostics.cv(asked),
        "max_mean": diagnostics.max_over_mean(asked),
        "dropped": diagnostics.dropped_share(routing),
        "unserved": diagnostics.unserved_share(routing),
        "experts": len(routing.token) / max(len(routing.demand), 1),
    }
