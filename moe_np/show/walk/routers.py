"""Walks through any router of `moe_np.routing`: what it looks at, whom it asks, with which weights,
and back.
"""

import numpy as np

from moe_np.base.checks import InputError
from moe_np.show.steps import Steps, Trail
from moe_np.show.walk.router_extras import COMPUTED
from moe_np.show.walk.router_phases import (
    AXES,
    GENERIC,
    HELD,
    LOGITS,
    OWN_AXES,
    PARAMETERS,
    PHASES,
    STANDS_IN,
)


def route(router, params, x, *, dweight=None, dlogits=None, **options):
    """Steps of `router.route(params, x, **options)` and of its `route_backward`.

    router     a module of moe_np.routing, or anything with the same functions (then the phases have no equations)
    dweight    (A,) the gradient that arrives at the weights; None: numbers from 1 down to −1, to see where they go
    dlogits    (N, E) the gradient that a balance loss sends; None: none
    options    the router's own, `rng` for noise among them

    The arrays have the names of the router's cache and of its Routing. Raises InputError where the
    router does.
    """
    routing, cache = router.route(params, x, **options)
    if dweight is not None and np.shape(dweight) != routing.weight.shape:
        raise InputError(
            f"dweight: wanted one for each of the {len(routing.weight)} rows, got {np.shape(dweight)}"
        )
    return Steps(_states(router, params, x, routing, cache, dweight, dlogits, options))


def _name(router):
    return getattr(router, "__name__", "").rpartition(".")[2]


def _states(router, params, x, routing, cache, dweight, dlogits, options):
    name = _name(router)
    trail = Trail(AXES | OWN_AXES.get(name, {}))
    yield trail.see("input", "", {"x": x, **params}, "The tokens, and the router's parameters.")
    there = _arrays(router, params, x, routing, cache, options)
    for phase, equation, names, note in PHASES.get(name, GENERIC):
        words = [text(options, cache) if callable(text) else text for text in (equation, note)]
        found = {n: there[n] for n in names.split() if there.get(n) is not None}
        if found:
            yield trail.see(phase, words[0], found, words[1])
    rows = {"token": routing.token, "expert": routing.expert, "weight": routing.weight}
    yield trail.see("routing", "", rows, _rows_note(routing))
    if hasattr(router, "route_backward"):
        if dweight is None:
            dweight = np.linspace(1, -1, len(routing.weight)).astype(routing.weight.dtype)
        yield from _backward(trail, router, routing, cache, dweight, dlogits)


def _rows_note(routing):
    rows, asked = len(routing.token), int(routing.demand.sum())
    dropped = (
        f" {asked - rows} of {asked} that were asked for found no place." if asked > rows else ""
    )
    return f"{rows} rows, one an assignment: what the layer gets.{dropped}"


def _arrays(router, params, x, routing, cache, options):
    """Every array that a phase may show, by name: of the routing, of the cache, computed for the
    learner.
    """
    own = cache._asdict() if hasattr(cache, "_asdict") else {}
    own = {k: v for k, v in own.items() if isinstance(v, np.ndarray)}
    there = {
        **params,
        "logits": routing.logits,
        "probs": routing.probs,
        "demand": routing.demand,
        **own,
    }
    if _name(router) in COMPUTED:
        there |= COMPUTED[_name(router)](params, x, routing, cache, options)
    return there


def _backward(trail, router, routing, cache, dweight, dlogits):
    name, arriving = _name(router), {"dweight": dweight, "dlogits_of_losses": dlogits}
    note = "From the layer, for each row" + (
        ", and from a balance loss." if dlogits is not None else "."
    )
    yield trail.see("backward, what arrives", "", arriving, note)
    if (known := LOGITS.get(name)) is not None:
        equation, names = known[0](cache) if callable(known[0]) else known[0], known[1]
        zeros = np.zeros(
            routing.demand.shape, routing.weight.dtype
        )  # not None: NumPy code, whatever kernels there are
        note = STANDS_IN.get(getattr(cache, "estimator", None), HELD)
        found = at_logits(router, cache, dweight, zeros if dlogits is None else dlogits, names)
        note += " draw is the gradient at raw." if "draw" in found else ""
        yield trail.see("backward, logits", equation, found, note)
    dx, grads = router.route_backward(dweight, dlogits, cache)
    equation = PARAMETERS.get(name, "")
    found = {"dx": dx, **{f"d{k}": g for k, g in grads.items()}}
    yield trail.see(
        "backward, parameters and tokens",
        equation(cache) if callable(equation) else equation,
        found,
        "For the optimiser, and for what lies below.",
    )


def at_logits(router, cache, dweight, dlogits, names):
    """The gradients at x·w, which `route_backward` does not return: read off by giving it the unit
    matrix for x.

    As dw = xᵀ dlogits, the unit matrix in the place of x makes dw the gradient at the logits itself.
    names    {parameter: what its product with x is called}
    """
    seen = "seen" if hasattr(cache, "seen") else "x"
    x = getattr(cache, seen)
    unit = {seen: np.eye(len(x), dtype=x.dtype)}
    if getattr(cache, "factor", None) is not None:
        unit["factor"] = None
    if "centroids" in names:  # logits = −‖x − c‖²/T: with c = 0 only 2 x·c/T is left of the slope
        unit["centroids"] = np.zeros((len(cache.centroids), len(x)), x.dtype)
        _, grads = router.route_backward(dweight, dlogits, cache._replace(**unit))
        return {names["centroids"]: grads["centroids"].T * (cache.temperature / 2)}
    _, grads = router.route_backward(dweight, dlogits, cache._replace(**unit))
    # no noise, no such product
    silent = ("w_noise",) if getattr(cache, "noise", ()) is None else ()
    return {names[k]: grads[k] for k in names if k not in silent}
