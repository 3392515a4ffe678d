"""Walks through the sparse layer (`moe_np.layers.sparse_layer`): the counting sort, the experts,
the weighted sum, and the backward pass.
"""

from typing import Annotated

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Array, Params
from moe_np.layers import sparse_layer
from moe_np.layers.experts import Expert
from moe_np.routing.contract import Routing
from moe_np.show.steps import Steps, Trail

AXES = {
    "x": ("N D", "N P D"),
    "token": "A",
    "expert": "A",
    "weight": "A",
    "count": "E",
    "offsets": "E+1",
    "next_place": "E",
    "order": "A",
    "rows": ("A D", "A P D"),
    "y": "A D_out",
    "weighted": "A D_out",
    "out": "N D_out",
    "arriving": "A D_out",
}
COUNT = r"\mathrm{count}_m = \#\{a : \mathrm{expert}_a = m\}"
OFFSETS = (
    r"\mathrm{offsets}_{m+1} = \mathrm{offsets}_m + \mathrm{count}_m, "
    r"\quad \mathrm{offsets}_0 = 0"
)
PLACE = (
    r"\mathrm{order}[\mathrm{next\_place}_m] = a, "
    r"\quad \mathrm{next\_place}_m \text{ goes up by 1}"
)
ORDER = r"\mathrm{order}_{\mathrm{place}(a)} = a"
GATHER = r"\mathrm{rows}_a = x_{\mathrm{token}_a}"
EXPERTS = r"y_a = \mathrm{expert}_{m(a)}(\mathrm{rows}_a)"
WEIGHTS = r"\mathrm{weighted}_a = \mathrm{weight}_a \, y_a"
COMBINE = r"\mathrm{out}_n = \sum_{a:\,\mathrm{token}_a = n} \mathrm{weight}_a \, y_a"
ARRIVING = r"\mathrm{arriving}_a = d\mathrm{out}_{\mathrm{token}_a}"
DWEIGHT = r"d\mathrm{weight}_a = \mathrm{arriving}_a \cdot y_a"
DY = r"dy_a = \mathrm{weight}_a \, \mathrm{arriving}_a"
DX = r"dx_n = \sum_{a:\,\mathrm{token}_a = n} d\mathrm{rows}_a"


# --- dispatch -------------------------------------------------------------------------------------


def dispatch(routing: Routing, x: Array | None = None, *, per_assignment: bool = False) -> Steps:
    """Steps of the counting sort: the assignments of a routing, sorted by their expert.

    x                 (N, D): their rows are gathered too; None: no rows
    per_assignment    one more state per assignment, which shows its place
    """
    x = None if x is None else np.asarray(x)
    return Steps(_sort(Trail(AXES), routing, x, per_assignment))


def _sort(trail, routing, x, per_assignment=False):
    n_experts = routing.demand.shape[1]
    given = {"x": x, "token": routing.token, "expert": routing.expert, "weight": routing.weight}
    note = "One row per assignment, in the order in which the router made them."
    yield trail.see("assignments", "", given, note)
    order, offsets = sparse_layer.by_expert(routing.expert, n_experts)
    yield trail.see("count", COUNT, {"count": np.diff(offsets)}, "The number of rows per expert.")
    note = "Expert m has the places offsets[m] to offsets[m + 1]."
    yield trail.see("offsets", OFFSETS, {"offsets": offsets}, note)
    if per_assignment:
        yield from _places(trail, routing.expert, offsets)
    note = "The assignment at each place: those of expert 0 first; an expert's keep their order."
    yield trail.see("order", ORDER, {"order": order}, note)
    columns = ("token", "expert", "weight")
    ordered = {name: getattr(routing, name)[order] for name in columns}
    note = "token, expert and weight are sorted from here on."
    if x is None:
        yield trail.see("sorted", "", ordered, note)
    else:
        ordered["rows"] = x[ordered["token"]]
        yield trail.see("gather", GATHER, ordered, f"{note} Every expert reads one block of rows.")


def _places(trail, expert, offsets):
    """One state per assignment: it takes the next place of its expert."""
    order = np.full(len(expert), -1)
    next_place = offsets[:-1].copy()
    for a, m in enumerate(expert):
        order[next_place[m]] = a
        next_place[m] += 1
        note = f"Assignment {a} is for expert {m}. −1 is a place without an assignment."
        arrays = {"order": order, "next_place": next_place}
        yield trail.see(f"place assignment {a}", PLACE, arrays, note)


# --- the whole layer ------------------------------------------------------------------------------


def layer(
    params: Params,
    x: Array,
    routing: Routing,
    expert: Expert,
    dout: Annotated[np.ndarray, "N, D_out"] | None = None,
) -> Steps:
    """Steps of `sparse_layer.forward` and, with dout (N, D_out), of `sparse_layer.backward`.

    expert    from `moe_np.layers.experts`, with its params

    Raises InputError where the layer does, and for a dout with another shape than the output.
    """
    out, _ = sparse_layer.forward(params, x, routing, expert)  # checks the arguments
    if dout is not None and np.shape(dout) != out.shape:
        raise InputError(f"dout: wanted the shape of out, {out.shape}, got {np.shape(dout)}")
    of_params = {name: " ".join(("E", *axes)) for name, axes in expert.axes.items() if name != "x"}
    trail = Trail(AXES | of_params)
    return Steps(_layer(trail, params, np.asarray(x), routing, expert, dout))


def _layer(trail, params, x, routing, expert, dout):
    yield from _sort(trail, routing, x)
    n_experts = routing.demand.shape[1]
    out, cache = sparse_layer.forward_numpy(params, x, routing, expert, n_experts)
    note = "One expert after the other, each on its block of rows."
    yield trail.see("experts", EXPERTS, {**params, "y": cache.y}, note)
    weighted = cache.weight[:, None] * cache.y
    yield trail.see("weights", WEIGHTS, {"weighted": weighted})
    yield from _combine(trail, weighted, cache, np.zeros_like(out))
    if dout is not None:
        yield from _backward(trail, dout, cache)


def _combine(trail, weighted, cache, out):
    """One state per expert: its rows are added to their tokens."""
    for m in range(len(cache.offsets) - 1):
        block = slice(cache.offsets[m], cache.offsets[m + 1])
        out[cache.token[block]] += weighted[block]
        note = (
            f"The rows of expert {m} are added. A token has at most one row per expert, so no row "
            "is lost."
        )
        yield trail.see(f"combine, expert {m}", COMBINE, {"out": out}, note)


def _backward(trail, dout, cache):
    arriving = dout[cache.token]
    yield trail.see("backward, arriving", ARRIVING, {"dout": dout, "arriving": arriving})
    dx, grads, dweight = sparse_layer.backward_numpy(dout, cache)
    note = "In the order in which the router made the assignments, as its backward pass needs it."
    yield trail.see("backward, weights", DWEIGHT, {"dweight": dweight}, note)
    dy = cache.weight[:, None] * arriving
    yield trail.see("backward, experts' outputs", DY, {"dy": dy})
    drows, _ = cache.expert.backward(dy, cache.experts)
    gradients = {"drows": drows, **{f"d{name}": g for name, g in grads.items()}}
    note = "Block by block, the backward pass of each expert."
    yield trail.see("backward, experts", "", gradients, note)
    note = "Without the gradient through the router, which is added to it."
    yield trail.see("backward, tokens", DX, {"dx": dx}, note)
