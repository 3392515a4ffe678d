"""Cosine gate, a router that nobody published: the expert whose direction is closest by angle.

    symbol       here       shape     meaning
    x/‖x‖        x_unit     (N, D)
    w_i/‖w_i‖    w_unit     (D, E)    directions of the experts
    cos          logits     (N, E)    x_unit · w_unit
    –            weight     (N,)      (1 + cos)/2 of the chosen expert, between 0 and 1

tests/routing/test_new_router.py puts this file, and a test of it, into a copy of the checkout.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayN,
    ArrayND,
    ArrayNE,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    x_unit: ArrayND
    w_unit: ArrayDE
    choice: ArrayN
    token: ArrayA
    valid: ArrayN


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E)}, normal with standard deviation scale/√D."""
    D, E = contract.check_init(rng, d_model, n_experts, scale, dtype)
    return {"w": (rng.normal(size=(D, E)) * (scale / np.sqrt(D))).astype(dtype)}


def route(
    params: Params,
    x: ArrayND,
    *,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to the expert of the smallest angle: x (N, D) -> (Routing, cache)."""
    x, w = contract.check_inputs(params, x)
    contract.check_training(training, rng)
    valid = contract.check_valid(valid, len(x))
    x_unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    w_unit = w / np.linalg.norm(w, axis=0)
    cosine = x_unit @ w_unit
    probs = (1 + cosine) / 2
    choice = contract.top_k(cosine, 1)[:, 0]
    token = np.flatnonzero(valid)
    demand = contract.demand_of(choice[:, None], w.shape[1], valid)
    routing = Routing(token, choice[token], probs[token, choice[token]], cosine, probs, demand)
    return routing, Cache(x, w, x_unit, w_unit, choice, token, valid)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> the gradient (N, E) at the cosines."""
    dcosine = np.zeros((len(cache.x), cache.w.shape[1]), cache.x.dtype)
    dcosine[cache.token, cache.choice[cache.token]] = dweight / 2
    return weighting.with_dlogits(dcosine, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}: through the two unit vectors."""
    x, w, x_unit, w_unit = cache.x, cache.w, cache.x_unit, cache.w_unit
    dcosine = logits_backward(dweight, dlogits, cache)
    dx_unit, dw_unit = linear_map.linear_backward(dcosine, x_unit, w_unit)
    along_x = (x_unit * dx_unit).sum(axis=1, keepdims=True)
    along_w = (w_unit * dw_unit).sum(axis=0)
    dx = (dx_unit - x_unit * along_x) / np.linalg.norm(x, axis=1, keepdims=True)
    dw = (dw_unit - w_unit * along_w) / np.linalg.norm(w, axis=0)
    return dx, {"w": dw}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    Stage(
        "directions",
        r"\mathrm{x\_unit} = x / \| x \|, \quad \mathrm{w\_unit} = w / \| w \|",
        {"x_unit": "N D", "w_unit": "D E"},
    ),
    Stage("logits", r"\mathrm{logits} = \mathrm{x\_unit} \, \mathrm{w\_unit}", {"logits": "N E"}),
    Stage(
        "selection",
        r"\mathrm{choice}_n = \arg\max_i \mathrm{logits}_{ni}",
        {"choice": "N", "demand": "N E"},
        "One expert per token.",
    ),
    Stage("weights", r"\mathrm{probs} = (1 + \mathrm{logits}) / 2", {"probs": "N E"}),
)
BACKWARD: tuple[Stage, ...] = (
    Stage("logits", r"d\mathrm{logits} = d\mathrm{weight} / 2", {"dlogits": "N E"}),
    Stage("parameters and tokens", "", {"dx": "N D", "dw": "D E"}),
)
