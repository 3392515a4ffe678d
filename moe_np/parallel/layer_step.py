"""One training step of a sparse layer with its router over ranks, and the same in one process: what
`moe-np parallel` runs, and what its tests compare.

The tokens are divided in pieces, of which each rank has some. A piece is routed by itself, and the
router's gradient is summed over the pieces in their order. So the result depends on the number of
pieces, which is an argument, but not on the number of ranks: all of them give the same bits.

    here      shape       meaning
    x, dout   (N, D)      all tokens, and the gradient that comes from above
    pieces    (P + 1,)    bounds: piece p has the tokens pieces[p] : pieces[p + 1]
"""

import hashlib
from collections.abc import Generator
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayND, DType, Params
from moe_np.layers import experts, sparse_layer
from moe_np.parallel import expert_parallel, groups, placement
from moe_np.parallel.exchanges import Bounds, Exchange, Gather, shares
from moe_np.parallel.placement import Placement
from moe_np.routing import top_k
from moe_np.routing.contract import Routing


class Sizes(NamedTuple):
    """Of a problem."""

    tokens: int = 256
    d_model: int = 32
    experts: int = 8
    hidden: int = 64
    k: int = 3  # of 3 and more: the sum of two outputs does not depend on their order
    pieces: int = 8
    skew: float = 0.0  # added to the logits of the first expert, less for each next one


class Problem(NamedTuple):
    """Parameters of router and experts, the tokens, and the gradient of the output."""

    sizes: Sizes
    router: Params
    params: Params
    x: ArrayND
    dout: ArrayND


class Result(NamedTuple):
    """What a step computes, for all tokens and all experts."""

    out: ArrayND
    dx: ArrayND
    experts: Params  # gradients
    router: Params


def problem(sizes: Sizes, *, dtype: DType = np.float64, seed: int = 0) -> Problem:
    """A problem of these sizes, the same on every rank. Raises InputError for other values."""
    checks.integer("tokens", sizes.tokens, minimum=0)
    for name in ("d_model", "experts", "hidden", "pieces"):
        checks.size(name, getattr(sizes, name))
    checks.integer("k", sizes.k, minimum=1, maximum=sizes.experts)
    checks.number("skew", sizes.skew)
    rng = np.random.default_rng(checks.integer("seed", seed, minimum=0))
    N, D, E = sizes.tokens, sizes.d_model, sizes.experts
    x = rng.normal(size=(N, D)).astype(dtype)
    router = top_k.init(rng, D, E, dtype=dtype)
    if sizes.skew:
        x[:, 0] = 1
        router["w"][0] += (sizes.skew * np.linspace(1, 0, E)).astype(dtype)
    params = experts.SWIGLU.init(rng, D, E, sizes.hidden, dtype=dtype)
    return Problem(sizes, router, params, x, rng.normal(size=(N, D)).astype(dtype))


# --- the pieces of the tokens ---------------------------------------------------------------------


class Routed(NamedTuple):
    """The routing of several pieces in one, and what the router's backward pass needs."""

    routing: Routing
    caches: list[Any]
    ends: Annotated[np.ndarray, "P - 1"]  # of the assignments of each piece but the last


def route_pieces(router: Params, x: list[ArrayND], k: int) -> Routed:
    """Route each piece by itself."""
    routed = [top_k.route(router, piece, k=k, renormalise=k > 1) for piece in x]
    routing = groups.join([routing for routing, _ in routed])
    ends = np.cumsum([len(part.token) for part, _ in routed])[:-1]
    return Routed(routing, [cache for _, cache in routed], ends)


def route_pieces_backward(dweight: Array, routed: Routed) -> tuple[ArrayND, list[Params]]:
    """dweight (A,) -> dx (N, D), the gradients of the router by piece."""
    parts = np.split(dweight, routed.ends)
    pairs = [
        top_k.route_backward(part, None, cache)
        for part, cache in zip(parts, routed.caches, strict=True)
    ]
    return np.concatenate([dx for dx, _ in pairs]), [grads for _, grads in pairs]


# --- the step -------------------------------------------------------------------------------------


def in_one_process(given: Problem, placed: Placement | None = None) -> Result:
    """The step by `moe_np.layers.sparse_layer` in NumPy, with the tokens in pieces.

    placed   its slots are the experts of the layer, so that replicas are the same as over ranks;
             None: a slot per expert
    """
    if placed is None:
        placed = placement.contiguous(given.sizes.experts, 1)
    bounds = shares(len(given.x), given.sizes.pieces)
    routed = route_pieces(given.router, np.split(given.x, bounds[1:-1]), given.sizes.k)
    slot = placement.slot_of(routed.routing.expert, routed.routing.token, placed)
    params = {name: p[placed.expert] for name, p in given.params.items()}
    out, cache = sparse_layer.forward_numpy(
        params, given.x, routed.routing._replace(expert=slot), experts.SWIGLU, len(placed.expert)
    )
    dx, of_slots, dweight = sparse_layer.backward_numpy(given.dout, cache)
    grads = {name: _add_slots(g, placed) for name, g in of_slots.items()}
    dx_router, parts = route_pieces_backward(dweight, routed)
    total = {name: p.copy() for name, p in parts[0].items()}
    for part in parts[1:]:
        for name in total:
            total[name] += part[name]
    return Result(out, dx + dx_router, grads, total)


def _add_slots(g, placed):
    """Gradients of the slots (S, ...) -> of the experts (E, ...), added in the order of slots."""
    first = np.searchsorted(placed.expert, np.arange(placed.n_experts))
    total = g[first].copy()
    for slot in np.setdiff1d(np.arange(len(g)), first):
        total[placed.expert[slot]] += g[slot]
    return total


def check_ranks(sizes: Sizes, ranks: int) -> Placement:
    """Contiguous shares of the experts. Raises InputError for more ranks than experts or pieces."""
    placed = placement.contiguous(sizes.experts, ranks)
    if ranks > sizes.pieces:
        raise InputError(f"ranks: wanted at most one per piece, {sizes.pieces}, got {ranks}")
    return placed


def on_a_rank(
    given: Problem, rank: int, ranks: int, placed: Placement | None = None
) -> Generator[Exchange, Any, Result]:
    """The step on one rank, as a generator: -> what belongs to its tokens and its slots, and the
    router's gradient.

    placed   which rank has which experts; None: contiguous shares

    Raises InputError for more ranks than experts or pieces.
    """
    placed = check_ranks(given.sizes, ranks) if placed is None else placed
    pieces = shares(len(given.x), given.sizes.pieces)
    first, last = shares(given.sizes.pieces, ranks)[rank : rank + 2]
    here = slice(pieces[first], pieces[last])
    x = [given.x[pieces[p] : pieces[p + 1]] for p in range(first, last)]
    routed = route_pieces(given.router, x, given.sizes.k)
    params = placement.params_of_rank(given.params, rank, placed)
    out, cache = yield from expert_parallel.forward(
        *(params, given.x[here], routed.routing, experts.SWIGLU, rank, placed),
        first_token=int(here.start),
    )
    dx, grads, dweight = yield from expert_parallel.backward(given.dout[here], cache)
    grads = yield from placement.summed_replicas(grads, rank, placed)
    dx_router, parts = route_pieces_backward(dweight, routed)
    router = yield from expert_parallel.summed_by_pieces(parts, "router")
    return Result(out, dx + dx_router, grads, router)


def gathered(result: Result, rank: int, placed: Placement) -> Generator[Exchange, Any, Result]:
    """What all ranks have computed, on every rank."""
    out = yield Gather(result.out, "out")
    dx = yield Gather(result.dx, "dx")
    grads = yield from placement.of_experts(result.experts, rank, placed)
    return Result(np.concatenate(out), np.concatenate(dx), grads, result.router)


def whole(
    given: Problem, rank: int, ranks: int, placed: Placement | None = None
) -> Generator[Exchange, Any, Result]:
    """`on_a_rank`, then `gathered`."""
    placed = check_ranks(given.sizes, ranks) if placed is None else placed
    result = yield from on_a_rank(given, rank, ranks, placed)
    return (yield from gathered(result, rank, placed))


def differences(wanted: Result, got: Result) -> dict[str, float | None]:
    """{array: None where all its bits are equal, else the largest difference}."""
    differ: dict[str, float | None] = {}
    pairs = zip(arrays(wanted).items(), arrays(got).values(), strict=True)
    for (name, a), b in pairs:
        if a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes():
            differ[name] = None
        else:
            differ[name] = float(np.abs(a - b).max()) if a.shape == b.shape else np.inf
    return differ


def arrays(result: Result) -> dict[str, Array]:
    """All arrays of a result by name."""
    grads = {f"experts.{name}": g for name, g in result.experts.items()}
    router = {f"router.{name}": g for name, g in result.router.items()}
    return {"out": result.out, "dx": result.dx, **grads, **router}


def digest(result: Result) -> str:
    """A hash of all bits: equal for equal results."""
    hashed = hashlib.sha256()
    for array in arrays(result).values():
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:16]


def bounds_of_pieces(sizes: Sizes, ranks: int) -> Bounds:
    """Which tokens each rank has."""
    return shares(sizes.tokens, sizes.pieces)[shares(sizes.pieces, ranks)]
