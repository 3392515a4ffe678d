"""The sparse layer: send tokens to their experts, let these work, add up what comes back. The same
for every router.

    y_a = expert(x_token(a))  for every assignment a,      out_n = Σ_{a: token(a) = n} weight_a · y_a

    paper      here             shape      meaning
    x          x                (N, D)     tokens; whatever has N rows and an expert that reads them, e.g. (N, P, D)
    G(x)_i     routing.weight   (A,)       one an assignment: Shazeer et al. 2017, eq. 1 without its zeros
    E_i(x)     y                (A, D_out) the experts' outputs, sorted by expert
    y          out              (N, D_out)

A token that no expert takes (dropped: no row of the routing) gets exactly 0, and passes on through
the residual connection outside the layer (errata 8). Weights need not add up to 1. Nothing that
comes in is changed.

    routing, router_cache = top_k.route(router, x, k=2, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    dx_router, router_grads = top_k.route_backward(dweight, dlogits, router_cache)      # add dx and dx_router

Where Numba is there, the experts it knows run in `moe_np.kernels.sparse_layer`, with the same
caches to rounding.
"""

from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.layers.experts import Expert, fold
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    x_shape: tuple
    expert: Expert
    order: np.ndarray  # (A,)  the assignment that stands at each place after sorting by expert
    offsets: np.ndarray  # (E + 1,)  expert m has the places offsets[m] to offsets[m + 1]
    token: np.ndarray  # (A,)  sorted, as the next two
    weight: np.ndarray  # (A,)
    y: np.ndarray  # (A, D_out)
    experts: NamedTuple  # the cache of the experts
    compiled: object = None  # what the compiled loops keep for their backward pass


def by_expert(expert, n_experts):
    """Counting sort: -> (order (A,), offsets (E + 1,)). The tokens of an expert keep the order of
    the assignments.
    """
    count = np.bincount(expert, minlength=n_experts)
    return np.argsort(expert, kind="stable"), np.concatenate([[0], np.cumsum(count)])


def combine(rows, token, offsets, n_tokens):
    """out_n = Σ of the rows whose token is n: rows (A, ...) sorted by expert -> (N, ...).

    Expert by expert, because a token comes up once an expert; `out[token] += rows` in one go loses
    all but one of the rows of a token (errata 12).
    """
    out = np.zeros((n_tokens, *rows.shape[1:]), rows.dtype)
    for m in range(len(offsets) - 1):
        own = slice(offsets[m], offsets[m + 1])
        out[token[own]] += rows[own]
    return out


def forward(params, x, routing, expert, *, workspace=None):
    """Dispatch, experts, combine: x (N, D) -> (out (N, D_out), cache).

    routing     from any router (`moe_np.routing`)
    expert      from `moe_np.layers.experts`, params its parameters
    workspace   a dict in which the compiled loops keep the arrays of out, cache and gradients, to use them again in the
                next call: these then live until that call only. None makes new arrays.

    Raises InputError for x that is not finite or not of the dtype of params, for parameters that
    are not one an expert, and for a routing that names tokens or experts there are not, or one
    expert twice for a token.
    """
    x = _check(params, x, routing, expert)
    if expert.kernel is not None and kernels.backend() == "numba":
        return _forward_compiled(params, x, routing, expert, {} if workspace is None else workspace)
    _check_values(x, routing)
    return forward_numpy(params, x, routing, expert, routing.demand.shape[1])


def forward_numpy(params, x, routing, expert, n_experts):
    """`forward` as NumPy says it."""
    order, offsets = by_expert(routing.expert, n_experts)
    token, weight = routing.token[order], routing.weight[order]
    y, experts = expert.forward(params, x[token], offsets)
    out = combine(_scale(weight, y), token, offsets, len(x))
    return out, Cache(x.shape, expert, order, offsets, token, weight, y, experts)


def backward(dout, cache):
    """dout (N, D_out) -> (dx (N, D), grads of the experts, dweight (A,) for `route_backward`).

    dy_a = weight_a · dout_token(a),  dweight_a = Σ_d dout_token(a),d · y_ad,  dx_n = Σ_{a: token(a) = n} drows_a.
    Where a token goes is not differentiated. Raises InputError for a dout that is not of the shape of out.
    """
    dout = checks.array("dout", dout, (cache.x_shape[0], *cache.y.shape[1:]), finite=False)
    dout = dout.astype(cache.y.dtype, copy=False)
    if cache.compiled is not None:
        return kernels.sparse_layer.backward(dout, cache.compiled)
    return backward_numpy(dout, cache)


def backward_numpy(dout, cache):
    """`backward` as NumPy says it."""
    x_shape, expert, order, offsets, token, weight, y, experts, _ = cache
    arriving = dout[token]
    dweight = np.empty_like(weight)
    dweight[order] = (arriving * y).sum(axis=tuple(range(1, y.ndim)))
    drows, grads = expert.backward(_scale(weight, arriving), experts)
    return combine(drows, token, offsets, x_shape[0]), grads, dweight


def _forward_compiled(params, x, routing, expert, workspace):

    name, cache_of = expert.kernel
    s = kernels.sparse_layer.sort(
        routing.token, routing.expert, routing.weight, *routing.demand.shape
    )
    if s is None or not kernels.sparse_layer.finite(kernels.sparse_layer.fixed(x).ravel()):
        _check_values(x, routing)
    out, kept = kernels.sparse_layer.forward(params, x, s, name, workspace)
    experts = cache_of(params, kept.rows, s.offsets, kept.z, kept.g)
    return out, Cache(x.shape, expert, s.order, s.offsets, s.token, s.weight, kept.y, experts, kept)


def _scale(weight, rows):
    return weight.reshape(-1, *(1,) * (rows.ndim - 1)) * rows


def _check(params, x, routing, expert):
    """The public door: shapes and types, which everything from here on takes for granted."""
    x = checks.array("x", x, ("N", "D", "F")[: max(2, min(np.ndim(x), 3))], finite=False)
    N, E = routing.demand.shape
    if len(x) != N:
        raise InputError(f"routing.demand: wanted {len(x)} tokens, as x has, got {N}")
    for name, p in params.items():
        if p.dtype != x.dtype:
            raise InputError(f"x: wanted {p.dtype}, the type of params[{name!r}], got {x.dtype}")
        if len(p) not in (1, E):
            raise InputError(
                f"params[{name!r}]: wanted axis 0 of {E} experts (or 1, shared), got {len(p)}"
            )
    if expert.features is not None and x.shape[-1] != expert.features(params):
        raise InputError(
            f"x: wanted {expert.features(params)} features, as the experts read, got {x.shape[-1]}"
        )
    weight = checks.array("routing.weight", routing.weight, ("A",), finite=False)
    if weight.dtype != x.dtype:
        raise InputError(f"routing.weight: wanted {x.dtype}, the type of x, got {weight.dtype}")
    for name, index in (("token", routing.token), ("expert", routing.expert)):
        if index.shape != weight.shape or index.dtype.kind != "i":
            wanted = f"{len(weight)} whole numbers, as weight has"
            raise InputError(f"routing.{name}: wanted {wanted}, got {index.dtype} {index.shape}")
    return x


def _check_values(x, routing):
    """Finite numbers, tokens and experts that there are, an expert once a token. The compiled loops
    see for themselves, while they sort, and come here for the words.
    """
    checks.array("x", x, x.shape)
    checks.array("routing.weight", routing.weight, ("A",))
    N, E = routing.demand.shape
    for name, index, end in (("token", routing.token, N), ("expert", routing.expert, E)):
        if len(index) and not (index.min() >= 0 and index.max() < end):
            raise InputError(
                f"routing.{name}: wanted numbers from 0 to {end - 1}, got {index.min()} to {index.max()}"
            )
    taken = np.zeros(routing.demand.shape, bool)
    taken[routing.token, routing.expert] = True
    if np.count_nonzero(taken) != len(routing.token):
        raise InputError(
            "routing: wanted each expert at most once a token, got one twice; add up its weights first"
        )


# --- routings and experts made of the layer itself ------------------------------------------------


def everyone(n_tokens, n_experts, dtype=np.float64):
    """The routing of shared experts, which every token passes with weight 1 (DeepSeekMoE, arXiv
    2401.06066, eq. 9).

    Such a layer is the sum of two: the routed experts and, with this routing, the shared ones.
    """
    token, expert = (
        np.repeat(np.arange(n_tokens), n_experts),
        np.tile(np.arange(n_experts), n_tokens),
    )
    ones = np.ones((n_tokens, n_experts), dtype)
    return Routing(token, expert, np.ones(len(token), dtype), None, ones, ones.astype(bool))


class NestedCache(NamedTuple):
    params: dict
    offsets: np.ndarray
    inner: dict  # expert -> (routing, the router's cache, the layer's cache)


def nested(router, options, expert):
    """A whole mixture as the expert of a mixture: -> Expert. `options` are those of `router.route`.

    params are the inner router's, named "router.…", and the inner experts', all with the outer
    expert as axis 0, e.g. "w1" (E, E_inner, D, H). The inner routings stand in the cache; a balance
    loss on them is up to the caller.
    """

    def init(rng, d_model, n_experts, n_inner, *sizes, scale=1.0, dtype=np.float64):
        """`sizes` are those of the inner expert's `init`."""
        each = []
        for _ in range(checks.integer("n_experts", n_experts)):
            gate = router.init(rng, d_model, n_inner, dtype=dtype)
            inner = expert.init(rng, d_model, n_inner, *sizes, scale=scale, dtype=dtype)
            each.append({**{f"router.{k}": p for k, p in gate.items()}, **inner})
        return {k: np.stack([p[k] for p in each]) for k in each[0]}

    def forward_all(params, rows, offsets):
        y, inner = [], {}
        for m in range(len(offsets) - 1):
            x = rows[offsets[m] : offsets[m + 1]]
            gate, own = _split({k: p[m % len(p)] for k, p in params.items()})
            routing, gate_cache = router.route(gate, x, **options)
            out, cache = forward(own, x, routing, expert)
            y.append(out)
            inner[m] = (routing, gate_cache, cache)
        return np.concatenate(y), NestedCache(params, offsets, inner)

    def backward_all(dy, cache):
        drows, grads = [], []
        for m, (_, gate_cache, inner) in cache.inner.items():
            dx, own, dweight = backward(dy[cache.offsets[m] : cache.offsets[m + 1]], inner)
            dx_gate, gate = router.route_backward(dweight, None, gate_cache)
            drows.append(dx + dx_gate)
            grads.append({**{f"router.{k}": g for k, g in gate.items()}, **own})
        stacked = {k: np.stack([g[k] for g in grads]) for k in cache.params}
        return np.concatenate(drows), fold(stacked, cache.params)

    return Expert(init, forward_all, backward_all)


def _split(params):
    """The router's parameters and the experts', by name."""
    gate = {k.removeprefix("router."): p for k, p in params.items() if k.startswith("router.")}
    return gate, {k: p for k, p in params.items() if not k.startswith("router.")}
