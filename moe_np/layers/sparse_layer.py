"""The sparse layer, also called sparsely-gated mixture-of-experts layer: dispatch tokens to their
experts, run the experts, and combine their outputs in a weighted sum per token. It is the same for
every router.

    y_a = expert(x_token(a))  for every assignment a,     out_n = Σ_{a: token(a) = n} weight_a · y_a

    paper      here             shape        meaning
    x          x                (N, D)       tokens; for cubic experts (N, P, D), patches of samples
    G(x)_i     routing.weight   (A,)         one per assignment: Shazeer et al. 2017, eq. 1, without
                                             the zeros of the gating network
    E_i(x)     y                (A, D_out)   the outputs of the experts, sorted by expert
    y          out              (N, D_out)

The output for a dropped token, which has no row in the routing, is exactly 0. The residual
connection outside the layer passes the token on (errata 8). Weights need not sum to 1. No input is
changed.

    routing, router_cache = top_k.route(router, x, k=2, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    dx_router, router_grads = top_k.route_backward(dweight, dlogits, router_cache)
    dx = dx + dx_router

With Numba, the kinds of experts that it knows run in `moe_np.kernels.sparse_layer`, with the same
caches to rounding.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, ArrayA, Params
from moe_np.layers.experts.expert import Expert, Offsets, Outputs, check_finite, check_params
from moe_np.routing import contract
from moe_np.routing.contract import Routing


class Cache(NamedTuple):
    """What the backward pass needs."""

    x_shape: tuple[int, ...]
    expert: Expert
    order: ArrayA  # the assignment at each place after sorting by expert
    offsets: Offsets  # expert m has the places offsets[m] to offsets[m + 1]
    token: ArrayA  # sorted, like weight and y
    weight: ArrayA
    y: Outputs
    experts: Any  # the cache of the experts
    compiled: Any = None  # what the compiled loops keep for their backward pass


def by_expert(expert: ArrayA, n_experts: int) -> tuple[ArrayA, Offsets]:
    """Counting sort of the assignments by their expert: -> (order (A,), offsets (E + 1,)).

    The assignments of an expert keep their order.
    """
    count = np.bincount(expert, minlength=n_experts)
    return np.argsort(expert, kind="stable"), np.concatenate([[0], np.cumsum(count)])


def combine(
    rows: Annotated[np.ndarray, "A, ..."], token: ArrayA, offsets: Offsets, n_tokens: int
) -> Annotated[np.ndarray, "N, ..."]:
    """out_n = Σ of the rows whose token is n, for rows sorted by expert.

    One expert after the other, because a token occurs at most once per expert: `out[token] += rows`
    in a single statement would keep only one of the rows of a token (errata 12).
    """
    out = np.zeros((n_tokens, *rows.shape[1:]), rows.dtype)
    for m in range(len(offsets) - 1):
        block = slice(offsets[m], offsets[m + 1])
        out[token[block]] += rows[block]
    return out


def forward(
    params: Params, x: Array, routing: Routing, expert: Expert, *, workspace: dict | None = None
) -> tuple[Annotated[np.ndarray, "N, D_out"], Cache]:
    """Dispatch, experts, combine: x (N, D) -> (out (N, D_out), cache).

    routing     from any router (`moe_np.routing`)
    expert      from `moe_np.layers.experts`, with its params
    workspace   a dict in which the compiled loops keep the arrays of out, cache and gradients and
                use them again in the next call: they are valid until then. None: new arrays.

    Raises InputError for x, weights, parameters or an output that are not finite, for parameters
    whose shapes or types do not match each other, x or the number of experts, and for a routing
    with a token or an expert that does not exist, or with an expert twice for one token.
    """
    params, x, routing = _check(params, x, routing, expert)
    if expert.kernel is not None and kernels.compiled(x.dtype):
        workspace = {} if workspace is None else workspace
        out, cache = _forward_compiled(params, x, routing, expert, workspace)
    else:
        _check_values(x, routing)
        with np.errstate(over="ignore", invalid="ignore"):
            out, cache = forward_numpy(params, x, routing, expert, routing.demand.shape[1])
    _check_output(params, x, routing, out, cache.experts)
    return out, cache


@one_blas_thread()
def forward_numpy(
    params: Params, x: Array, routing: Routing, expert: Expert, n_experts: int
) -> tuple[Annotated[np.ndarray, "N, D_out"], Cache]:
    """`forward` in NumPy, without the checks; the same bits for any number of BLAS threads."""
    order, offsets = by_expert(routing.expert, n_experts)
    token = routing.token[order]
    weight = routing.weight[order]
    y, expert_cache = expert.forward(params, x[token], offsets)
    out = combine(_weighted(weight, y), token, offsets, len(x))
    return out, Cache(x.shape, expert, order, offsets, token, weight, y, expert_cache)


def backward(dout: Annotated[np.ndarray, "N, D_out"], cache: Cache) -> tuple[Array, Params, ArrayA]:
    """dout (N, D_out) -> (dx (N, D), grads of the experts, dweight (A,) for `route_backward`).

    dy_a = weight_a · dout_token(a),  dweight_a = Σ_d dout_token(a),d · y_ad,
    dx_n = Σ_{a: token(a) = n} drows_a.

    The choice of the experts is not differentiated. Raises InputError for a dout with another shape
    than out.
    """
    dout = checks.array("dout", dout, (cache.x_shape[0], *cache.y.shape[1:]), finite=False)
    dout = dout.astype(cache.y.dtype, copy=False)
    if cache.compiled is not None:
        return kernels.sparse_layer.backward(dout, cache.compiled)
    return backward_numpy(dout, cache)


@one_blas_thread()
def backward_numpy(
    dout: Annotated[np.ndarray, "N, D_out"], cache: Cache
) -> tuple[Array, Params, ArrayA]:
    """`backward` in NumPy, without the checks; the same bits for any number of BLAS threads."""
    arriving = dout[cache.token]
    dweight = np.empty_like(cache.weight)
    dweight[cache.order] = (arriving * cache.y).sum(axis=tuple(range(1, arriving.ndim)))
    drows, grads = cache.expert.backward(_weighted(cache.weight, arriving), cache.experts)
    return combine(drows, cache.token, cache.offsets, cache.x_shape[0]), grads, dweight


def _weighted(weight, rows):
    return weight.reshape(-1, *(1,) * (rows.ndim - 1)) * rows


def _forward_compiled(params, x, routing, expert, workspace):
    name, cache_of = expert.kernel
    s = kernels.sparse_layer.sort(
        routing.token, routing.expert, routing.weight, *routing.demand.shape
    )
    if s is None or not kernels.sparse_layer.all_finite(kernels.sparse_layer.read_only(x).ravel()):
        _check_values(x, routing)
    assert s is not None  # otherwise _check_values has raised
    out, kept = kernels.sparse_layer.forward(params, x, s, name, workspace)
    experts = cache_of(params, kept.rows, s.offsets, kept.z, kept.g)
    return out, Cache(x.shape, expert, s.order, s.offsets, s.token, s.weight, kept.y, experts, kept)


# --- the checks of all that comes in --------------------------------------------------------------


def _check(params, x, routing, expert):
    """Check all shapes and types, which the functions above take for granted; return the same
    arguments as arrays.
    """
    routing = contract.check_routing(routing)
    n_tokens, n_experts = routing.demand.shape
    x = checks.array("x", x, ("N", *expert.axes["x"]), finite=False)
    if len(x) != n_tokens:
        raise InputError(f"x: wanted {n_tokens} tokens, as the routing has, got {len(x)}")
    params, lengths = check_params(params, n_experts, x.dtype, expert.axes)
    features = lengths.get("D", x.shape[-1])
    if x.shape[-1] != features:
        raise InputError(f"x: wanted {features} features, as the experts read, got {x.shape[-1]}")
    if routing.weight.dtype != x.dtype:
        wanted = f"{x.dtype}, the type of x"
        raise InputError(f"routing.weight: wanted {wanted}, got {routing.weight.dtype}")
    return params, x, routing


def _check_output(params, x, routing, out, cache):
    """Check that the output is finite, and so are the parameters of the experts that worked.

    A weight that is not finite makes the output or a pre-activation not finite. So the weights
    themselves, which can be far more numbers, are read only where they are fewer. A bias of −inf
    can hide behind a ReLU, and biases are few.
    """
    hidden = [getattr(cache, name) for name in ("z", "g") if getattr(cache, name, None) is not None]
    smaller = sum(a.size for a in hidden) < sum(p.size for p in params.values())
    hidden += [p for p in params.values() if p.ndim == 2]
    # a sum of finite numbers may overflow; check_finite then looks again
    out_is_finite = np.isfinite(out).all()
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite = out_is_finite and all(np.isfinite(a.sum()) for a in hidden if smaller)
    if not is_finite or not smaller:
        used = np.flatnonzero(np.bincount(routing.expert, minlength=routing.demand.shape[1]))
        check_finite(params, used)
    if not out_is_finite:
        raise InputError(
            f"x: wanted numbers for which the layer's output is below {np.finfo(x.dtype).max:.1e}, "
            f"the largest of {x.dtype}, got larger ones"
        )


def _check_values(x, routing):
    """Check that x and the weights are finite, that the tokens and experts of the routing exist,
    and that no token has an expert twice.

    The compiled path checks this while it sorts, and calls this function only to raise the error.
    """
    checks.array("x", x, x.shape)
    checks.array("routing.weight", routing.weight, ("A",))
    n_tokens, n_experts = routing.demand.shape
    indices = (("token", routing.token, n_tokens), ("expert", routing.expert, n_experts))
    for name, index, end in indices:
        if len(index) and not (index.min() >= 0 and index.max() < end):
            got = f"{index.min()} to {index.max()}"
            raise InputError(f"routing.{name}: wanted numbers from 0 to {end - 1}, got {got}")
    taken = np.zeros(routing.demand.shape, bool)
    taken[routing.token, routing.expert] = True
    if np.count_nonzero(taken) != len(routing.token):
        raise InputError(
            "routing: wanted each expert at most once per token, got one of them twice; "
            "sum its weights first"
        )
