"""A classifier of one sparse layer beside a linear map, and dense networks of the same form.

    scores = x W + b + layer(x),   loss = mean of −log softmax(scores)_y

    here        shape      meaning
    x           (N, D)     inputs, the last a constant 1
    layer                  E experts, D to H (ReLU) to C; dense: one expert that every case passes
    W, b        (D, C)     the linear map: what a case without an expert is classified by
    shared                 an expert beside the routed ones that every case passes

Operations are multiplications with an addition, per case and forward pass.
"""

import types
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.types import ArrayN, ArrayNC, ArrayND, Options, Params, Rng
from moe_np.experiments.generalisation.data_sets import Cases
from moe_np.layers import balance, shared_experts, sparse_layer
from moe_np.layers.experts import RELU
from moe_np.routing import bias_balanced, expert_choice, hashing, noisy_top_k, top_k
from moe_np.routing.contract import Routing

NO_OPTIONS: Options = types.MappingProxyType({})
TOP_2: Options = {"k": 2, "renormalise": True}
BALANCE = 0.01  # coefficient of the load-balancing loss: Switch's, and for sigmoids the importance
TABLE = 4096  # entries of the table of the router that looks at nothing


class System(NamedTuple):
    """A classifier and how it is trained."""

    router: Any  # a module of moe_np.routing (a `contract.Router`); None: dense
    experts: int
    hidden: int  # units of an expert
    options: Options = NO_OPTIONS  # of `route`
    active: int = 2  # experts per case
    shared_expert: bool = False
    shared_layer: bool = False  # the experts have their first layer in common
    weight_decay: float = 0.0
    input_noise: float = 0.0  # standard deviation of what is added to the inputs in training


SYSTEMS = {
    "top-2 of 8": System(top_k, 8, 16, TOP_2),
    "top-2 of 4": System(top_k, 4, 16, TOP_2),
    "top-2 of 32": System(top_k, 32, 16, TOP_2),
    "dense 32": System(None, 1, 32),  # the active size of the mixtures with 2 experts per case
    "dense 64": System(None, 1, 64),  # the size of 4 experts
    "dense 128": System(None, 1, 128),  # of 8
    "dense 512": System(None, 1, 512),  # of 32
    "noisy top-2 of 8": System(noisy_top_k, 8, 16, {"k": 2}),
    "expert choice": System(expert_choice, 8, 16, {"capacity_factor": 2.0}),
    "sigmoid top-2 of 8": System(bias_balanced, 8, 16, TOP_2),  # with biases of 0: no softmax
    "one shared expert": System(top_k, 7, 16, {"k": 1, "renormalise": False}, shared_expert=True),
    "shared first layer": System(top_k, 8, 16, TOP_2, shared_layer=True),
    # for controls
    "dense 128, drawn anew": System(None, 1, 128),  # another initialisation
    "at random": System(hashing, 8, 16, active=1),
    "weight decay": System(top_k, 8, 16, TOP_2, weight_decay=1.0),
    "trained with noise": System(top_k, 8, 16, TOP_2, input_noise=0.5),
}


def init(rng: Rng, name: str, features: int, classes: int) -> dict[str, Params]:
    """{"linear", "experts", and as far as there are "router", "shared"} in float32."""
    system = SYSTEMS[name]
    if name.endswith("drawn anew"):
        rng = rng.spawn(1)[0]
    share = ("w1", "b1") if system.shared_layer else ()
    E, H = system.experts, system.hidden
    params = {
        "experts": RELU.init(rng, features, E, H, classes, share=share),
        "linear": {"w": np.zeros((features, classes)), "b": np.zeros(classes)},
    }
    if system.router is hashing:
        params["router"] = hashing.init(rng, features, E, vocabulary=TABLE)
    elif system.router is not None:
        params["router"] = top_k.init(rng, features, E)  # the same for all gates
    if system.router is noisy_top_k:  # softplus(0) = .69, as in the paper
        params["router"]["w_noise"] = np.zeros((features, E))
    if system.router is bias_balanced:
        params["router"]["bias"] = np.zeros(E)
    if system.shared_expert:
        params["shared"] = RELU.init(rng, features, 1, H, classes)
    return {
        part: {k: p.astype(np.float32) if p.dtype.kind == "f" else p for k, p in arrays.items()}
        for part, arrays in params.items()
    }


def parameters(params: dict[str, Params]) -> int:
    """The number of parameters that are learnt; a layer that is shared counts once."""
    arrays = [p for part in params.values() for p in part.values()]
    return sum(p.size for p in arrays if p.dtype.kind == "f")


def operations(name: str, features: int, classes: int) -> int:
    """Operations per case: the linear map, the gating network, and the experts that are used."""
    system = SYSTEMS[name]
    used = 1 if system.router is None else system.active
    first_layers = 1 if system.shared_layer else used
    work = system.hidden * (first_layers * features + used * classes)
    gate = 0 if system.router in (None, hashing) else features * system.experts
    return features * classes + gate + work


def route(
    system: System, params: dict[str, Params], x: ArrayND, rng: Rng | None = None
) -> tuple[Routing, Any]:
    """The Routing of x (N, D) and the cache of the router; `rng`: in training, with its noise."""
    if system.router is None:
        return shared_experts.routing(len(x), 1, x.dtype), None
    options = dict(system.options)
    if system.router is hashing:  # by digits of the input that say nothing of the class
        ids = (np.abs(x[:, 0]).astype(np.float64) * 1e5).astype(np.int64) % TABLE
        options = {"ids": ids, "n_experts": system.experts}
    elif rng is not None and system.router is noisy_top_k:
        options |= {"training": True, "rng": rng}
    return system.router.route(params["router"], x, **options)


def scores(
    system: System,
    params: dict[str, Params],
    x: ArrayND,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayNC, tuple]:
    """x (N, D) -> scores (N, C) and the cache for `gradients`; `workspace` as in `sparse_layer`."""
    routing, router_cache = route(system, params, x, rng)
    out, cache = sparse_layer.forward(params["experts"], x, routing, RELU, workspace=workspace)
    shared_cache = None
    if system.shared_expert:
        every = shared_experts.routing(len(x), 1, x.dtype)
        added, shared_cache = sparse_layer.forward(params["shared"], x, every, RELU)
        out = out + added
    linear = params["linear"]
    return x @ linear["w"] + linear["b"] + out, (routing, router_cache, cache, shared_cache)


def gradients(
    system: System,
    params: dict[str, Params],
    part: Cases,
    rng: Rng,
    workspace: dict | None = None,
) -> tuple[float, dict[str, Params]]:
    """(loss in nats per case, gradients) of a minibatch, with the load-balancing loss."""
    x, y = part
    if system.input_noise:
        x = x.copy()
        x[:, :-1] += system.input_noise * rng.normal(size=x[:, :-1].shape).astype(x.dtype)
    out, (routing, router_cache, cache, shared_cache) = scores(system, params, x, rng, workspace)
    losses, dscores = _cross_entropy(out, y)
    grads = {"linear": {"w": x.T @ dscores, "b": dscores.sum(axis=0)}}
    _, grads["experts"], dweight = sparse_layer.backward(dscores, cache)
    if shared_cache is not None:
        grads["shared"] = sparse_layer.backward(dscores, shared_cache)[1]
    if system.router not in (None, hashing):
        balanced = balance.total(_balance(system, routing))
        if balanced.dweight is not None:
            dweight = dweight + balanced.dweight
        grads["router"] = system.router.route_backward(dweight, balanced.dlogits, router_cache)[1]
    return float(losses.mean()), grads


def _balance(system, routing):
    """The load-balancing losses with their coefficients; none for expert choice, whose experts are
    equally full as it is.
    """
    if system.router is expert_choice:
        return []
    loss = balance.importance if system.router is bias_balanced else balance.switch
    return [(BALANCE, loss(routing))]


def _cross_entropy(out, y):
    """Losses (N,) and the gradient of their mean at the scores (N, C)."""
    log_p = numerics.log_softmax(out)
    rows = np.arange(len(y))
    dscores = np.exp(log_p)
    dscores[rows, y] -= 1
    return -log_p[rows, y], dscores / np.float32(len(y))


def losses_of(system: System, params: dict[str, Params], part: Cases, batch: int) -> ArrayN:
    """The loss of every case in evaluation; expert choice in batches of the size of training, on
    which its choice depends.
    """
    size = batch if system.router is expert_choice else len(part.x)
    blocks = [slice(i, i + size) for i in range(0, len(part.x), size)]
    parts = [
        _cross_entropy(scores(system, params, part.x[block])[0], part.y[block])[0]
        for block in blocks
    ]
    return np.concatenate(parts)
