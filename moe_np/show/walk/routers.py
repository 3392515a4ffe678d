"""Walks through any router: its logits, its choice, its weights, and the gradients back.

What is shown, with which equation and in which order, stands in the router's own STAGES and
BACKWARD (moe_np/routing/contract.py explains how); the arrays are those of its cache.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import ArrayA, ArrayND, ArrayNE, Params
from moe_np.routing.contract import Router, Routing, Stage
from moe_np.show.steps import State, Steps, Trail

# for a router that states no stages
STAGES = (
    Stage("logits", "", {"logits": "N E"}),
    Stage("probabilities", "", {"probs": "N E"}),
    Stage("selection", "", {"choice": "N k", "demand": "N E"}),
)
BACKWARD = (
    Stage("logits", "", {"dlogits": "N E"}),
    Stage("parameters and tokens", "", {"dx": "N D", "dw": "D E"}),
)
COMMON = {"x": "N D", "dlogits_of_losses": "N E"}
ROWS = {"token": "A", "expert": "A", "weight": "A"}


def route(
    router: Router,
    params: Params,
    x: ArrayND,
    *,
    dweight: ArrayA | None = None,
    dlogits: ArrayNE | None = None,
    **options: Any,
) -> Steps:
    """Steps of `router.route(params, x, **options)` and of its `route_backward`.

    router     a module of moe_np.routing, or anything with the same functions; without STAGES the
               steps have no equations
    dweight    (A,) the gradient that arrives at the weights; None: numbers from 1 down to −1, so
               that one sees where each goes
    dlogits    (N, E) the gradient of the load-balancing losses; None: none
    options    the router's own, `rng` for noise among them

    The arrays have the names of the router's cache and of its Routing. Raises InputError where the
    router does.
    """
    routing, cache = router.route(params, x, **options)
    if dweight is None:
        dweight = np.linspace(1, -1, len(routing.weight)).astype(routing.weight.dtype)
    if np.shape(dweight) != routing.weight.shape:
        raise InputError(
            f"dweight: wanted one for each of the {len(routing.weight)} rows, "
            f"got {np.shape(dweight)}"
        )
    return Steps(states(router, params, x, routing, cache, dweight, dlogits))


def states(
    router: Router,
    params: Params,
    x: ArrayND,
    routing: Routing,
    cache: Any,
    dweight: ArrayA | None,
    dlogits: ArrayNE | None,
) -> Iterator[State]:
    """The states of `route`, from a routing and a cache that are there already.

    dweight   None: the forward pass alone
    """
    forward = getattr(router, "STAGES", STAGES)
    backward = getattr(router, "BACKWARD", BACKWARD)
    trail = Trail(_axes(*forward, *backward))
    yield trail.see("input", "", {"x": x, **params}, "The tokens, and the router's parameters.")
    yield from _shown(trail, forward, cache, _Arrays(cache, routing, params))
    rows = {name: getattr(routing, name) for name in ROWS}
    yield trail.see("routing", "", rows, _rows_note(routing))
    if dweight is None or not hasattr(router, "route_backward"):
        return
    arriving = {"dweight": dweight, "dlogits_of_losses": dlogits}
    of_losses = "" if dlogits is None else ", and from a load-balancing loss"
    note = f"From the layer, for each row{of_losses}."
    yield trail.see("backward, what arrives", "", arriving, note)
    gradients = _gradients(router, dweight, dlogits, cache)
    yield from _shown(trail, backward, cache, gradients, "backward, ")


def _axes(*stages):
    """name -> the axes that it can have: a parameter has those of its gradient."""
    axes = {name: [named] for name, named in (COMMON | ROWS).items()}
    for stage in stages:
        for name, named in stage.arrays.items():
            axes.setdefault(name, []).append(named)
            if name.startswith("d"):
                axes.setdefault(name[1:], []).append(named)
    return {name: tuple(choices) for name, choices in axes.items()}


class _Arrays:
    """What a stage can show, by name: the cache first, then the routing, then the parameters."""

    def __init__(self, cache, routing, params):
        self.sources = cache, routing
        self.params = params

    def get(self, name):
        for source in self.sources:
            if (value := getattr(source, name, None)) is not None:
                return value
        return self.params.get(name)


def _shown(trail, stages, cache, arrays, prefix=""):
    """The states of the stages that hold, each with those of its arrays that exist."""
    for stage in stages:
        given = {name: arrays.get(name) for name in stage.arrays}
        given = {name: value for name, value in given.items() if value is not None}
        if given and _holds(stage, cache):
            yield trail.see(prefix + stage.name, stage.equation, given, stage.note)


def _holds(stage, cache):
    if stage.when is None:
        return True
    name, wanted = stage.when
    value = getattr(cache, name)
    if isinstance(wanted, bool):
        is_set = value is not None and (isinstance(value, np.ndarray) or bool(value))
        return is_set == wanted
    return value == wanted


def _rows_note(routing):
    rows = len(routing.token)
    demanded = int(routing.demand.sum())
    dropped = ""
    if demanded > rows:
        dropped = f" {demanded - rows} of {demanded} that were asked for found no place."
    return f"{rows} rows, one per assignment: what the layer gets.{dropped}"


def _gradients(router, dweight, dlogits, cache):
    """Gradients by name: at the logits, at the tokens, at the parameters."""
    gradients = {}
    if hasattr(router, "logits_backward"):
        at_logits = router.logits_backward(dweight, dlogits, cache)
        at_products = getattr(at_logits, "_asdict", None)  # several gradients, or dlogits alone
        gradients |= {"dlogits": at_logits} if at_products is None else at_products()
    dx, grads = router.route_backward(dweight, dlogits, cache)
    return gradients | {"dx": dx} | {f"d{name}": grad for name, grad in grads.items()}
