"""Top-k softmax gate with a bias per expert: top-k gating in which the gate of an expert can be
closed.

    logits = x·W_g + b,     then as in `moe_np.routing.top_k`

    here       shape     meaning
    w          (D, E)    router matrix
    bias       (E,)      b; CLOSED at an expert whose gate is closed

An expert with the bias CLOSED has the probability 0 exactly, for every token: nothing chooses it,
the weights of the other experts are what they would be without it, and its gradient is 0. No column
of w can do that for k ≥ 2. It would be a linear function of x below the k-th largest of the other
logits for all x; where the logits of the others are free, one large logit among zeros wants its
coefficients to be at most 0, and equal logits want their sum to be 1.

A model with this router and b = 0 is one with `top_k`; `moe_np.adapt.adding` goes both ways.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayE,
    ArrayN,
    ArrayND,
    ArrayNE,
    ArrayNK,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, stages, top_k
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {"k": 2, "renormalise": True}
CLOSED = -1e30  # a logit whose softmax is 0 in float32 and in float64


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    bias: ArrayE
    probs: ArrayNE
    choice: ArrayNK
    weight: ArrayNK
    renormalise: bool
    gate: top_k.Cache  # of (x, 1) and of w with the row b


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E), "bias": (E,)}: normal with standard deviation scale/√D, and a bias of 0."""
    params = top_k.init(rng, d_model, n_experts, scale=scale, dtype=dtype)
    return {**params, "bias": np.zeros(n_experts, dtype)}


def route(
    params: Params,
    x: ArrayND,
    *,
    k: int,
    renormalise: bool,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its k largest logits: x (N, D) -> (Routing with A = k·N, cache). No noise.

    Raises InputError for k = 1 renormalised, and for k above the number of open experts.
    """
    x, w, bias = contract.check_inputs(params, x, {"w": ("D", "E"), "bias": ("E",)})
    closed = bias < CLOSED / 2
    n_open = len(bias) - int(np.count_nonzero(closed))
    if contract.check_k(k, len(bias)) > n_open:
        raise InputError(f"k: wanted at most the {n_open} experts whose gate is open, got {k}")
    joined = {"w": np.concatenate([w, bias[None]])}
    options = {"k": k, "renormalise": renormalise, "valid": valid, "training": training}
    routing, gate = top_k.route(joined, _with_ones(x), **options, rng=rng)
    if n_open < len(bias):
        gate.probs[:, closed] = 0  # compiled loops leave the smallest number that is not
    return routing, Cache(x, w, bias, gate.probs, gate.choice, gate.weight, renormalise, gate)


def _with_ones(x: ArrayND) -> Annotated[np.ndarray, "N, D + 1"]:
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The choice is held."""
    return top_k.logits_backward(dweight, dlogits, cache.gate)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w", "bias"}: db = Σ_n dlogits_n."""
    dx, grads = top_k.route_backward(dweight, dlogits, cache.gate)
    return dx[:, :-1], {"w": grads["w"][:-1], "bias": grads["w"][-1]}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    Stage("logits", r"\mathrm{logits} = x w + b", {"logits": "N E"}),
    stages.SOFTMAX,
    stages.largest("logits", stages.BEST_FIRST),
    stages.RENORMALISED,
    stages.NOT_RENORMALISED,
)
BACKWARD: tuple[Stage, ...] = (
    stages.through_kept()._replace(when=("renormalise", True)),
    stages.THROUGH_SOFTMAX._replace(when=("renormalise", False)),
    Stage(
        "parameters and tokens",
        r"dw = x^\top d\mathrm{logits}, \quad db = \textstyle\sum_n d\mathrm{logits}_n, "
        r"\quad dx = d\mathrm{logits} \, w^\top",
        {"dx": "N D", "dw": "D E", "dbias": "E"},
        stages.BELOW,
    ),
)
