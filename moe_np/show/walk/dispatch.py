"""Walks through the sparse layer (`moe_np.layers.sparse_layer`): the counting sort, the experts,
the sum, and back.
"""

import numpy as np

from moe_np.base.checks import InputError
from moe_np.layers import sparse_layer
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


def dispatch(routing, x=None, *, slowly=False):
    """Steps of sorting the assignments of a routing by their expert, and with x (N, D) of gathering
    their rows.

    slowly    a state for every assignment that finds its place
    """
    return Steps(_sort(Trail(AXES), routing, None if x is None else np.asarray(x), slowly))


def _sort(trail, routing, x, slowly=False):
    E = routing.demand.shape[1]
    given = {"x": x, "token": routing.token, "expert": routing.expert, "weight": routing.weight}
    yield trail.see(
        "assignments",
        "",
        given,
        "One row an assignment, in the order in which the router made them.",
    )
    order, offsets = sparse_layer.by_expert(routing.expert, E)
    equation = r"\mathrm{count}_m = \#\{a : \mathrm{expert}_a = m\}"
    yield trail.see(
        "count", equation, {"count": np.diff(offsets)}, "How many rows each expert gets."
    )
    equation = r"\mathrm{offsets}_{m+1} = \mathrm{offsets}_m + \mathrm{count}_m, \quad \mathrm{offsets}_0 = 0"
    yield trail.see(
        "offsets",
        equation,
        {"offsets": offsets},
        "Expert m owns the places offsets[m] to offsets[m + 1].",
    )
    if slowly:
        yield from _place(trail, routing.expert, offsets)
    equation = r"\mathrm{order}_{\mathrm{place}(a)} = a"
    note = "The assignment that stands at each place: those of expert 0 first, each expert's in the old order."
    yield trail.see("order", equation, {"order": order}, note)
    ordered = {
        "token": routing.token[order],
        "expert": routing.expert[order],
        "weight": routing.weight[order],
    }
    rows = None if x is None else x[ordered["token"]]
    equation = r"\mathrm{rows}_a = x_{\mathrm{token}_a}" if x is not None else ""
    note = "token, expert and weight are sorted from here on." + (
        " Every expert reads one block of rows." * bool(equation)
    )
    yield trail.see(
        "gather" if x is not None else "sorted", equation, {**ordered, "rows": rows}, note
    )


def _place(trail, expert, offsets):
    """One state an assignment: it takes the next place of its expert."""
    order, next_place = np.full(len(expert), -1), offsets[:-1].copy()
    equation = r"\mathrm{order}[\mathrm{next\_place}_m] = a, \quad \mathrm{next\_place}_m \text{ goes up by 1}"
    for a, m in enumerate(expert):
        order[next_place[m]] = a
        next_place[m] += 1
        note = f"Assignment {a} is for expert {m}. Places without one yet are −1."
        yield trail.see(
            f"place assignment {a}", equation, {"order": order, "next_place": next_place}, note
        )


def layer(params, x, routing, expert, dout=None):
    """Steps of `sparse_layer.forward`, and with dout (N, D_out) of `backward`: dispatch, experts,
    combine and back.

    expert    from `moe_np.layers.experts`, params its parameters
    Raises InputError where the layer does.
    """
    out, _ = sparse_layer.forward(params, x, routing, expert)  # checks what comes in
    if dout is not None and np.shape(dout) != out.shape:
        raise InputError(f"dout: wanted the shape of out, {out.shape}, got {np.shape(dout)}")
    return Steps(_layer(Trail(AXES), params, np.asarray(x), routing, expert, dout))


def _layer(trail, params, x, routing, expert, dout):
    yield from _sort(trail, routing, x)
    out, cache = sparse_layer.forward_numpy(params, x, routing, expert, routing.demand.shape[1])
    given = {**params, "y": cache.y}
    yield trail.see(
        "experts", r"y_a = \mathrm{expert}_{m(a)}(\mathrm{rows}_a)", given, "One product a block."
    )
    weighted = cache.weight[:, None] * cache.y
    yield trail.see(
        "weights", r"\mathrm{weighted}_a = \mathrm{weight}_a \, y_a", {"weighted": weighted}
    )
    yield from _combine(trail, weighted, cache, np.zeros_like(out))
    if dout is not None:
        yield from _backward(trail, dout, cache)


def _combine(trail, weighted, cache, out):
    """One state an expert: its rows are added to their tokens."""
    equation = r"\mathrm{out}_n = \sum_{a:\,\mathrm{token}_a = n} \mathrm{weight}_a \, y_a"
    for m in range(len(cache.offsets) - 1):
        own = slice(cache.offsets[m], cache.offsets[m + 1])
        out[cache.token[own]] += weighted[own]
        note = (
            f"The rows of expert {m} are added. A token comes up once an expert, so no row is lost."
        )
        yield trail.see(f"combine, expert {m}", equation, {"out": out}, note)


def _backward(trail, dout, cache):
    arriving = dout[cache.token]
    equation = r"\mathrm{arriving}_a = d\mathrm{out}_{\mathrm{token}_a}"
    yield trail.see("backward, arriving", equation, {"dout": dout, "arriving": arriving})
    dx, grads, dweight = sparse_layer.backward_numpy(dout, cache)
    note = "In the order in which the router made the assignments: this is what its backward pass wants."
    equation = r"d\mathrm{weight}_a = \mathrm{arriving}_a \cdot y_a"
    yield trail.see("backward, weights", equation, {"dweight": dweight}, note)
    dy = cache.weight[:, None] * arriving
    yield trail.see(
        "backward, experts' outputs", r"dy_a = \mathrm{weight}_a \, \mathrm{arriving}_a", {"dy": dy}
    )
    drows, _ = cache.expert.backward(dy, cache.experts)
    found = {"drows": drows, **{f"d{k}": g for k, g in grads.items()}}
    yield trail.see(
        "backward, experts", "", found, "Block by block, each expert's own backward pass."
    )
    equation = r"dx_n = \sum_{a:\,\mathrm{token}_a = n} d\mathrm{rows}_a"
    yield trail.see(
        "backward, tokens", equation, {"dx": dx}, "Without the router's part, which is added to it."
    )
