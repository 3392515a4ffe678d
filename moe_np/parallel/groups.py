"""Groups of tokens over ranks: which tokens are routed together, and so share a capacity.

    group     tokens that are routed together                  the result depends on
    "piece"   those of a piece: GShard's groups                the number of pieces
    "rank"    those of a rank, as most systems do it           the number of ranks
    "batch"   those of all ranks, gathered on every rank       neither

The paper's own definition is the group (Lepikhin et al. 2020, GShard, arXiv 2006.16668, section
2.2; Switch follows it), so the share of tokens that a capacity drops is a fact of the group
(`moe_np.parallel.dropped`).

What a router needs is derived from the router (`need`):

    LOCAL   a token's routing depends on that token alone: any group gives the same routing
    SUMS    it does too, but the router also learns from counts of all tokens, by its own rule
    WHOLE   it depends on other tokens: a capacity, a router that is not causal

For WHOLE the group must be said. Random numbers are drawn by group: a generator per piece gives the
same numbers on any ranks.

The groups of load-balancing losses are in `moe_np.parallel.balance_in_groups`.
"""

import inspect
from collections.abc import Generator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayA, ArrayND, Options, Params, Rng
from moe_np.layers.mixture_layer import router_of
from moe_np.parallel.exchanges import Exchange, Gather
from moe_np.parallel.expert_parallel import summed_by_pieces
from moe_np.routing.contract import BalanceLoss, Router, Routing

GROUPS = ("piece", "rank", "batch")
LOCAL = "local"
SUMS = "sums"
WHOLE = "whole batch"

LEARNS_FROM_COUNTS = {  # a router -> what it learns from all tokens, beside its gradient
    "bias_balanced": "update_bias, from the counts of all experts",
    "kmeans": "online, from the tokens of each centroid",
}


class Need(NamedTuple):
    """What a router needs of other ranks."""

    of: str  # LOCAL, SUMS or WHOLE
    reason: str


def need(name: str, options: Options) -> Need:
    """What this router needs with these options of its `route`."""
    module = router_of(name)
    if options.get("capacity_factor") is not None:
        return Need(WHOLE, "a capacity counts the tokens of a group")
    factor = inspect.signature(module.route).parameters.get("capacity_factor")
    limited = factor is None or factor.default is not None  # there is no way without a limit
    if not module.CAUSAL and limited:
        return Need(WHOLE, "the routing of a token depends on the other tokens")
    if name in LEARNS_FROM_COUNTS:
        return Need(SUMS, LEARNS_FROM_COUNTS[name])
    return Need(LOCAL, "the routing of a token depends on that token alone")


def check_group(name: str, options: Options, group: str | None) -> str:
    """The group in which this router routes; None is "piece", for a router that is not WHOLE.

    Raises InputError for a router that needs the whole batch, where no group is said.
    """
    if group is not None:
        return checks.choice("group", group, GROUPS)
    needed = need(name, options)
    if needed.of == WHOLE:
        raise InputError(
            f"group: wanted one of {', '.join(GROUPS)} for the router {name}, because "
            f"{needed.reason}, got None"
        )
    return "piece"


# --- routing in groups ----------------------------------------------------------------------------


class Routed(NamedTuple):
    """The routing of a rank's tokens, and what the backward pass needs."""

    routing: Routing  # of this rank's tokens to all experts
    group: str
    router: Router
    parts: list[Routing]  # the groups of this rank; of "batch" the whole batch
    caches: list[Any]  # one per part
    bounds: Annotated[np.ndarray, "P + 1"]  # of the tokens in the parts
    here: ArrayA | None  # of "batch": which assignments are of this rank's tokens
    n_tokens: Annotated[np.ndarray, "R"]  # tokens of each rank
    rank: int


def route(
    router: Router,
    params: Params,
    pieces: Sequence[ArrayND],
    *,
    group: str,
    options: Options,
    rank: int,
    facts: Sequence[dict[str, Any]] | None = None,
    rng: Rng | None = None,
) -> Generator[Exchange, Any, Routed]:
    """Route a rank's tokens, which come in pieces: -> Routed.

    options   of the router's `route`
    facts     of each piece further arguments of `route` with a value per token, such as valid and
              ids; `rng` and `training` may be among them where the group is "piece"
    rng       of "rank" and "batch": the generator of the group. For "batch" all ranks must have
              one in the same state
    """
    checks.choice("group", group, GROUPS)
    facts = [{} for _ in pieces] if facts is None else list(facts)
    sizes = yield Gather(np.array([sum(len(piece) for piece in pieces)]), "tokens per rank")
    n_tokens = np.concatenate(sizes)
    if group == "piece":
        parts = list(zip(pieces, facts, strict=True))
    else:
        x, joined = np.concatenate(pieces), _join_facts(facts)
        if group == "batch":
            gathered = yield Gather(x, "x of the group")
            x = np.concatenate(gathered)
            joined = yield from _gather_facts(joined)
        parts = [(x, {**joined, **({} if rng is None else {"rng": rng})})]
    pairs = [router.route(params, x, **values, **options) for x, values in parts]
    bounds = np.cumsum([0, *(len(x) for x, _ in parts)])
    routings = [routing for routing, _ in pairs]
    whole = join(routings)
    here = None
    if group == "batch":
        first = int(n_tokens[:rank].sum())
        here = _of_tokens(whole, first, first + int(n_tokens[rank]))
        whole = _cut(whole, first, first + int(n_tokens[rank]), here)
    caches = [cache for _, cache in pairs]
    return Routed(whole, group, router, routings, caches, bounds, here, n_tokens, rank)


def route_backward(
    dweight: ArrayA, added: BalanceLoss | None, routed: Routed, name: str = "router"
) -> Generator[Exchange, Any, tuple[ArrayND, Params]]:
    """dweight (A,) of this rank's assignments -> dx (N, D), the gradient of the router, the same on
    all ranks: the sum over the parts of all ranks in their order.

    added   from `balance_in_groups.balance_loss`, of this rank's parts
    """
    added = BalanceLoss(0.0) if added is None else added
    if routed.group == "batch":
        first = np.concatenate([[0], np.cumsum(routed.n_tokens)])
        gathered = yield Gather(dweight, f"dweight of {name}")
        whole = np.empty(len(routed.parts[0].token), dweight.dtype)
        for rank, part in enumerate(gathered):
            whole[_of_tokens(routed.parts[0], first[rank], first[rank + 1])] = part
        dx, grads = _backward(routed.router, whole, added, routed.caches[0])
        return dx[first[routed.rank] : first[routed.rank + 1]], grads
    ends = np.cumsum([len(part.token) for part in routed.parts])[:-1]
    losses = _split(added, routed.bounds, ends)
    pairs = [
        _backward(routed.router, part, loss, cache)
        for part, loss, cache in zip(np.split(dweight, ends), losses, routed.caches, strict=True)
    ]
    grads = yield from summed_by_pieces([grads for _, grads in pairs], name)
    return np.concatenate([dx for dx, _ in pairs]), grads


def _backward(router, dweight, added, cache):
    dweight = dweight if added.dweight is None else dweight + added.dweight
    dload = {} if added.dload is None else {"dload": added.dload}
    return router.route_backward(dweight, added.dlogits, cache, **dload)


def _split(added, bounds, ends):
    """A loss of all parts -> one per part."""
    n = len(bounds) - 1
    dlogits = [None] * n if added.dlogits is None else np.split(added.dlogits, bounds[1:-1])
    dweight = [None] * n if added.dweight is None else np.split(added.dweight, ends)
    dload = [None] * n if added.dload is None else list(added.dload)
    return [
        BalanceLoss(0.0, dweight=w, dlogits=d, dload=load)
        for w, d, load in zip(dweight, dlogits, dload, strict=True)
    ]


def join(parts: Sequence[Routing]) -> Routing:
    """The routings of parts as one of all their tokens. Its logits are None where a part's are."""
    starts = np.cumsum([0, *(len(part.demand) for part in parts)])
    token = [part.token + start for part, start in zip(parts, starts[:-1], strict=True)]
    columns: dict[str, Any] = {"token": np.concatenate(token)}
    for name in Routing._fields[1:]:
        arrays = [getattr(part, name) for part in parts]
        columns[name] = None if any(a is None for a in arrays) else np.concatenate(arrays)
    return Routing(**columns)


def _of_tokens(routing, first, last):
    """The assignments of the tokens first : last."""
    return np.flatnonzero((routing.token >= first) & (routing.token < last))


def _cut(routing, first, last, here):
    """The routing of the tokens first : last, whose assignments are `here`."""
    rows = slice(first, last)
    return Routing(
        routing.token[here] - first,
        routing.expert[here],
        routing.weight[here],
        None if routing.logits is None else routing.logits[rows],
        routing.probs[rows],
        routing.demand[rows],
    )


def _join_facts(facts):
    return {
        name: value if np.ndim(value) == 0 else np.concatenate([fact[name] for fact in facts])
        for name, value in facts[0].items()
        if value is not None and name != "rng"
    }


def _gather_facts(facts):
    gathered = {}
    for name, value in facts.items():
        if np.ndim(value) == 0:
            gathered[name] = value
        else:
            parts = yield Gather(value, f"{name} of the group")
            gathered[name] = np.concatenate(parts)
    return gathered
