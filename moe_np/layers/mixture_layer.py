"""The mixture-of-experts layer of a whole model: a router by its name, the experts it chooses, and
experts that every token passes.

    out_n = Σ_i G(h_n)_i E_i(h_n) + σ(h_n·w) Σ_j S_j(h_n)

    paper     here           shape         meaning
    G         "router"                     any of moe_np.routing; its parameters
    E_i       "experts"      axis 0: E     routed experts, any kind of moe_np.layers.experts
    S_j       "shared"       axis 0: n     shared experts (DeepSeekMoE, arXiv 2401.06066, eq. 9)
    w         "shared_gate"  (D, 1)        {"w"} (Qwen2-MoE, arXiv 2407.10671); without it the
                                           shared experts have the weight 1
    –         h              (N, D)        tokens, in a model after the norm

The parameters are a dict of these four, of which "experts" alone is always there. Without "router"
the layer is dense: one expert that every token passes, an ordinary feed-forward network. Other keys
are left alone, so that the dict of a whole block can be given.

"experts" may also be an object with `read(numbers) -> params of these experts` and a length, for a
model that is larger than memory (`moe_np.models.checkpoints`): only the experts that tokens chose
are then read. With `groups(numbers)` and `lend(numbers) -> (params, places)` in addition it keeps
some of them (`moe_np.serving.offload`), and the output is the sum over groups of experts that are
in memory together. Such layers have no backward pass.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np import routing as routers
from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayN, ArrayND, DType, Options, Params, Rng
from moe_np.layers import balance, few_tokens, shared_experts, sparse_layer
from moe_np.layers.experts import GELU, RELU, SWIGLU, Expert
from moe_np.routing import top_k
from moe_np.routing.contract import BalanceLoss, Router, Routing

Tree = dict[str, Any]  # {"experts": {...}, "router": {...}, ...}, or the gradients
Losses = Sequence[tuple[float, Callable[..., BalanceLoss]]]  # (coefficient, of layers/balance.py)

KINDS = {"swiglu": SWIGLU, "relu": RELU, "gelu": GELU}


class SharedGate(NamedTuple):
    """σ(h·w), the weight of the shared experts, for the backward pass."""

    h: ArrayND
    w: Annotated[np.ndarray, "D, 1"]
    share: ArrayN


class Cache(NamedTuple):
    """What the backward pass and the load-balancing losses need."""

    router: Router | None  # None: dense
    router_params: Tree
    routing: Routing
    gate: Any  # the cache of the router
    experts: sparse_layer.Cache
    shared: sparse_layer.Cache | None
    shared_gate: SharedGate | None


def router_of(name: str) -> Router:
    """The module of moe_np.routing of this name. Raises InputError for another name."""
    return _modules()[checks.choice("router", name, tuple(_modules()))]


@functools.cache
def _modules() -> dict[str, Any]:
    return routers.routers()


@functools.cache
def _takes(argument, function):
    return argument in inspect.signature(function).parameters


def causal_router(name: str) -> Router:
    """`router_of` for a decoder: a router that lets later tokens decide on earlier ones is refused.

    With it a token would see its future in training, and generation, which has no future, would
    give other outputs (errata 13). A capacity that counts tokens in their order is causal.
    """
    router = router_of(name)
    if not router.CAUSAL:
        raise InputError(
            "router: wanted one for which later tokens do not decide on earlier ones, got "
            f"{name}: in a decoder a token would see its future in training, and generation, "
            "which has no future, would give other outputs"
        )
    return router


def init(
    rng: Rng,
    d_model: int,
    n_experts: int,
    hidden: int,
    *,
    kind: str = "swiglu",
    router: str | None = "top_k",
    init_options: Options | None = None,
    shared: int = 0,
    shared_hidden: int | None = None,
    shared_gate: bool = False,
    vocabulary: int | None = None,
    dtype: DType = np.float64,
) -> Tree:
    """{"experts", and as far as wanted "router", "shared", "shared_gate"}, from their `init`s.

    kind           of expert: "swiglu", "relu" or "gelu"
    router         None: dense, for n_experts = 1
    init_options   of the router's `init`
    shared         number of shared experts, of shared_hidden (or else `hidden`) hidden units each
    vocabulary     number of token ids, for a router with a table of them

    Raises InputError for a shared gate without shared experts, and for several experts without a
    router.
    """
    expert = KINDS[checks.choice("kind", kind, tuple(KINDS))]
    if shared_gate and not shared:
        raise InputError("shared_gate: wanted shared experts to be gated, got shared=0")
    if router is None and n_experts != 1:
        raise InputError(f"n_experts: wanted 1 without a router, got {n_experts}")
    params: Tree = {}
    if router is not None:
        params["router"] = init_router(
            *(rng, d_model, n_experts),
            router=router,
            init_options=init_options,
            vocabulary=vocabulary,
            dtype=dtype,
        )
    params["experts"] = expert.init(rng, d_model, n_experts, hidden, dtype=dtype)
    if shared:
        params["shared"] = expert.init(rng, d_model, shared, shared_hidden or hidden, dtype=dtype)
    if shared_gate:
        w = rng.normal(size=(d_model, 1)) / np.sqrt(d_model)
        params["shared_gate"] = {"w": w.astype(dtype)}
    return params


def init_router(
    rng: Rng,
    d_model: int,
    n_experts: int,
    *,
    router: str,
    init_options: Options | None = None,
    vocabulary: int | None = None,
    dtype: DType = np.float64,
) -> Params:
    """The part "router" of `init`, whose arguments these are."""
    module = router_of(router)
    options = dict(init_options or {})
    if _takes("vocabulary", module.init):
        options.setdefault("vocabulary", vocabulary)
    drawn = module.init(rng, d_model, n_experts, **options)
    # a table keeps its integers
    return {name: p.astype(dtype) if p.dtype.kind == "f" else p for name, p in drawn.items()}


def forward(
    params: Tree,
    h: ArrayND,
    *,
    expert: Expert,
    router: Router,
    options: Options,
    valid: ArrayN | None = None,
    training: bool = False,
    rng: Rng | None = None,
    ids: ArrayN | None = None,
    workspace: dict | None = None,
) -> tuple[ArrayND, Cache]:
    """h (N, D) -> (out (N, D), cache).

    router      from `router_of` or `causal_router`; `options` are those of its `route`
    valid       (N,), False at padding, which gets no routed expert
    training    with `rng`, for routers that draw
    ids         (N,), the tokens' numbers, for a router that routes by them
    workspace   as in `sparse_layer.forward`
    """
    routed = "router" in params
    if routed:
        facts = {"valid": valid, "training": training, "rng": rng if training else None}
        if _takes("ids", router.route):
            facts |= {"ids": ids, "n_experts": _count(params["experts"])}
        routing, gate = router.route(params["router"], h, **facts, **options)
    else:
        routing, gate = shared_experts.routing(len(h), 1, h.dtype), None
    groups = _in_memory(params["experts"], routing)
    loaded, numbered = next(groups)
    out, cache = sparse_layer.forward(loaded, h, numbered, expert, workspace=workspace)
    for loaded, numbered in groups:  # a group takes the memory of the one before it
        added, cache = sparse_layer.forward(loaded, h, numbered, expert)
        out = out + added
    shared = shared_gate = None
    if "shared" in params:
        all_tokens, shared_gate = _shared_routing(params, h)
        added, shared = sparse_layer.forward(params["shared"], h, all_tokens, expert)
        out = out + added
    kept = params["router"] if routed else {}
    module = router if routed else None
    return out, Cache(module, kept, routing, gate, cache, shared, shared_gate)


def forward_few(
    params: Tree,
    h: ArrayND,
    *,
    expert: Expert,
    router: Router,
    options: Options,
    ids: ArrayN,
) -> tuple[ArrayND, Routing]:
    """`forward` for few tokens in generation: h (N, D) -> out (N, D), routing. No checks of what
    was checked before, no cache, no padding. The arguments are those of `forward`.
    """
    if "router" not in params:
        routing = _every_token(len(h), 1, h.dtype)
    elif router is top_k:
        routing = top_k.route_unchecked(params["router"], h, **options)
    else:
        numbers = {"ids": ids, "n_experts": _count(params["experts"])}
        facts = numbers if _takes("ids", router.route) else {}
        routing, _ = router.route(params["router"], h, training=False, rng=None, **facts, **options)
    groups = _in_memory(params["experts"], routing)
    loaded, numbered = next(groups)
    out = few_tokens.forward(loaded, h, numbered, expert)
    for loaded, numbered in groups:
        out = out + few_tokens.forward(loaded, h, numbered, expert)
    if "shared" in params:
        all_tokens, _ = _shared_routing(params, h)
        out = out + few_tokens.forward(params["shared"], h, all_tokens, expert)
    return out, routing


@functools.lru_cache(maxsize=64)
def _every_token(n_tokens, n_experts, dtype):
    return shared_experts.routing(n_tokens, n_experts, dtype)


def backward(dout: ArrayND, cache: Cache, added: BalanceLoss | None = None) -> tuple[ArrayND, Tree]:
    """dout (N, D) -> dh (N, D), the gradients of the parameters by the names that `forward` used.

    added   the load-balancing losses of this layer (`balance_loss`), whose gradients go into the
            router too. None: there are none

    The choice of the experts is not differentiated.
    """
    dh, dexperts, dweight = sparse_layer.backward(dout, cache.experts)
    grads: Tree = {"experts": dexperts}
    if cache.router is not None:
        dgate, grads["router"] = _router_backward(dweight, added or BalanceLoss(0.0), cache)
        dh = dh + dgate
    if cache.shared is not None:
        dshared, grads["shared"], dweight = sparse_layer.backward(dout, cache.shared)
        dh = dh + dshared
        if cache.shared_gate is not None:
            h, w, share = cache.shared_gate
            dshare = dweight.reshape(len(h), -1).sum(axis=1)  # one weight for all shared experts
            dlogit = numerics.sigmoid_backward(dshare, share)[:, None]
            dh = dh + dlogit @ w.T
            grads["shared_gate"] = {"w": h.T @ dlogit}
    return dh, grads


def balance_loss(losses: Losses, cache: Cache, valid: ArrayN | None = None) -> BalanceLoss:
    """Σ coefficient · loss of this layer over the valid tokens; 0 for a dense layer.

    losses   pairs of a coefficient and a function of moe_np.layers.balance of (routing, valid=);
             `balance.load` is given the cache of the router instead
    """
    if not isinstance(losses, (tuple, list)) or not all(map(_is_pair, losses)):
        wanted = "pairs as (0.01, balance.switch)"
        raise InputError(f"losses: wanted {wanted}, got {checks.text(losses)}")
    if cache.router is None:
        return BalanceLoss(0.0)
    pairs = []
    for coefficient, loss in losses:
        by_cache = loss is balance.load
        term = loss(cache.gate) if by_cache else loss(cache.routing, valid=valid)
        pairs.append((coefficient, term))
    return balance.total(pairs)


def _is_pair(loss):
    return isinstance(loss, (tuple, list)) and len(loss) == 2 and callable(loss[1])


def _router_backward(dweight, added, cache):
    """-> dh (N, D), the gradients of the router: of the task and of the load-balancing losses."""
    dweight = dweight if added.dweight is None else dweight + added.dweight
    dload = {} if added.dload is None else {"dload": added.dload}
    dh, grads = cache.router.route_backward(dweight, added.dlogits, cache.gate, **dload)
    # what a router does not learn, such as a table, has the gradient 0
    return dh, {name: grads.get(name, np.zeros_like(p)) for name, p in cache.router_params.items()}


def _shared_routing(params, h):
    """Every token to each shared expert, with the weight 1 or σ(h·w)."""
    n_shared = len(next(iter(params["shared"].values())))
    all_tokens = shared_experts.routing(len(h), n_shared, h.dtype)
    if "shared_gate" not in params:
        return all_tokens, None
    w = checks.array("params['shared_gate']['w']", params["shared_gate"]["w"], (h.shape[1], 1))
    share = numerics.sigmoid(h @ w)[:, 0]
    gated = all_tokens._replace(weight=np.repeat(share, n_shared))
    return gated, SharedGate(h, w, share)


def _count(params):
    """The number of experts, of arrays or of what reads them."""
    return len(params["w2"]) if isinstance(params, dict) else len(params)


def _in_memory(params, routing):
    """The parameters of the experts, and the routing. Of experts that are read, those that tokens
    chose, numbered by their places: one group after the other, each with its assignments.
    """
    if isinstance(params, dict):
        yield params, routing
        return
    used = np.unique(routing.expert) if len(routing.expert) else np.zeros(1, np.int64)
    if not hasattr(params, "lend"):
        yield params.read(used), _numbered(routing, used, np.arange(len(used)), len(used))
        return
    for numbers in params.groups(used):
        loaded, places = params.lend(numbers)
        yield loaded, _numbered(routing, numbers, places, len(loaded["w2"]))


def _numbered(routing, numbers, places, n_places):
    """The assignments to the experts `numbers`, which lie in `places` of n_places."""
    place_of = np.full(routing.demand.shape[1], -1)
    place_of[numbers] = places
    expert = place_of[routing.expert]
    here = expert >= 0
    probs, demand = (
        np.zeros((len(table), n_places), table.dtype) for table in (routing.probs, routing.demand)
    )
    probs[:, places] = routing.probs[:, numbers]
    demand[:, places] = routing.demand[:, numbers]
    token, weight = routing.token[here], routing.weight[here]
    return Routing(token, expert[here], weight, routing.logits, probs, demand)
