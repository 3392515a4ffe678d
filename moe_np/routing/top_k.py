"""Top-k softmax gate (top-k gating): Mixtral (Jiang et al. 2024, arXiv 2401.04088, section 2.1),
DeepSeekMoE, GLaM.

    paper            here       shape     meaning
    W_g              w          (D, E)    router matrix
    x·W_g            logits     (N, E)
    softmax(x·W_g)   probs      (N, E)
    TopK             choice     (N, k)    best first
    G(x)             weight     (N, k)    row by row the weights of the assignments

Renormalised, the weights are a softmax over the k kept logits, which is the same as the k kept
probabilities divided by their sum: the other logits get a gradient of exactly 0 (Mixtral, GLaM,
GShard). Not renormalised, they are the probabilities themselves, and every logit gets a gradient
(DeepSeekMoE, Switch). Which of the two is an argument without a default.
"""

from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks, numerics
from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayN,
    ArrayND,
    ArrayNE,
    ArrayNK,
    DType,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, linear_map, stages, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True
EXAMPLE: Options = {"k": 2, "renormalise": True}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    probs: ArrayNE
    choice: ArrayNK
    weight: ArrayNK
    renormalise: bool
    valid: ArrayN | None


def init(
    rng: Rng, d_model: int, n_experts: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (D, E)}, normal with standard deviation scale/√D."""
    D, E = contract.check_init(rng, d_model, n_experts, scale, dtype)
    return {"w": (rng.normal(size=(D, E)) * scale / np.sqrt(D)).astype(dtype)}


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

    Raises InputError for k = 1 renormalised, where the router would learn nothing.
    """
    # the compiled loop looks for NaN and infinity in x while it reads it
    x, w = contract.check_inputs(params, x, finite=False)
    compiled = kernels.compiled(x.dtype)
    if not compiled:
        checks.array("x", x, x.shape)
    k = contract.check_k(k, w.shape[1])
    contract.check_renormalise(renormalise, k)
    contract.check_training(training, rng)
    valid = contract.check_padding(valid, len(x))
    gate = (kernels.top_k.forward if compiled else forward_numpy)(x, w, k, renormalise)
    if gate is None:  # a number of x is not finite
        checks.array("x", x, x.shape)
    assert gate is not None  # otherwise this check has raised
    linear_map.check_logits(gate[0])
    logits, probs, choice, weight, demand = gate
    if valid is not None:
        demand &= valid[:, None]
    routing = Routing(*weighting.rows(choice, weight, valid), logits, probs, demand)
    return routing, Cache(x, w, probs, choice, weight, renormalise, valid)


def route_unchecked(params: Params, x: ArrayND, *, k: int, renormalise: bool) -> Routing:
    """The Routing of `route`, for generation: of few tokens, with arguments that were checked."""
    compiled = kernels.compiled(x.dtype)
    gate = (kernels.top_k.forward if compiled else forward_numpy)(x, params["w"], k, renormalise)
    if gate is None:
        checks.array("x", x, x.shape)
    assert gate is not None  # otherwise this check has raised
    logits, probs, choice, weight, demand = gate
    return Routing(*weighting.rows(choice, weight, None), logits, probs, demand)


def forward_numpy(
    x: ArrayND, w: ArrayDE, k: int, renormalise: bool
) -> tuple[ArrayNE, ArrayNE, ArrayNK, ArrayNK, ArrayNE]:
    """The gate in NumPy: -> logits (N, E), probs (N, E), choice (N, k), weight (N, k), demand (N,
    E).
    """
    logits = linear_map.linear(x, w)
    probs = numerics.softmax(logits)
    choice = contract.top_k(logits, k)
    if renormalise:
        weight = weighting.renormalised(logits, choice)
    else:
        weight = np.take_along_axis(probs, choice, axis=1)
    return logits, probs, choice, weight, contract.demand_of(choice, w.shape[1])


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). The choice is held."""
    choice, probs = cache.choice, cache.probs
    dchosen = weighting.rows_backward(dweight, choice.shape, cache.valid)
    if cache.renormalise:
        dscore = weighting.renormalised_backward(dchosen, cache.weight, choice, probs.shape[1])
    else:
        dscore = weighting.probs_backward(dchosen, np.arange(len(choice))[:, None], choice, probs)
    return weighting.with_dlogits(dscore, dlogits, cache.valid)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. The choice is held."""
    x, w = cache.x, cache.w
    if cache.renormalise and dlogits is None and kernels.compiled(x.dtype):  # k of E logits
        dchosen = weighting.rows_backward(dweight, cache.choice.shape, cache.valid)
        dchosen = dchosen.astype(x.dtype, copy=False)
        dx, dw = kernels.top_k.backward(dchosen, cache.weight, cache.choice, x, w)
    else:
        dx, dw = linear_map.linear_backward(logits_backward(dweight, dlogits, cache), x, w)
    return dx, {"w": dw}


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    stages.LINEAR,
    stages.SOFTMAX,
    stages.largest("logits", stages.BEST_FIRST),
    stages.RENORMALISED,
    stages.NOT_RENORMALISED,
)
BACKWARD: tuple[Stage, ...] = (
    stages.through_kept()._replace(when=("renormalise", True)),
    stages.THROUGH_SOFTMAX._replace(when=("renormalise", False)),
    stages.LINEAR_BACKWARD,
)
