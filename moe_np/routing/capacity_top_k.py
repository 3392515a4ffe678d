"""Top-k softmax gate with a capacity that is filled in the order of the tokens: token dropping for
causal models.

    expert capacity C = ceil(capacity factor · k·N/E)
    choice and weight as in `moe_np.routing.top_k`; then each expert keeps its first C tokens

    symbol    here       shape     meaning
    W_g       w          (D, E)    router matrix, the parameter of `top_k` too
    TopK      choice     (N, k)    best first
    G(x)      weight     (N, k)    before any capacity; not renormalised after it
    C         C                    tokens that one expert takes; None: no limit
    –         kept       (N, k)    the choices that found a place

Tokens get their places one after the other, each for all its k choices. GShard gives places to the
first choices of all tokens before any second one, so that a later token can take the place of an
earlier one. Here it cannot: the gate is causal. C comes from N, the number of tokens that are no
padding, not from what they are. With the same C later tokens change nothing for earlier ones; with
more tokens C is larger. So a decoder trains and evaluates with a capacity, and generation, where N
grows, refuses it. The order is that of the rows of x: a decoder lists one sequence after the other,
and the last ones of a batch lose most.

Megatron-Core has this as moe_expert_capacity_factor with moe_token_drop_policy="position", which is
not its default (NVIDIA/Megatron-LM, megatron/core/transformer/moe/moe_utils.py). Its order is the
first token of each sequence, then the second of each, and so on. It takes C of the equal entries of
a table by torch.topk, which does not promise to take the first. MaxText counts along each sequence
by itself (AI-Hypercomputer/maxtext, MaxText/layers/moe.py). Neither renormalises after the drop.

Without a capacity factor this is `top_k`: a model with either is the same model.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.types import (
    ArrayA,
    ArrayDE,
    ArrayN,
    ArrayND,
    ArrayNE,
    ArrayNK,
    Options,
    Params,
    Rng,
)
from moe_np.routing import contract, top_k, weighting
from moe_np.routing.contract import Routing, Stage

CAUSAL = True  # places are given in the order of the tokens
EXAMPLE: Options = {"k": 2, "renormalise": True, "capacity_factor": 1.0}

init = top_k.init  # {"w": (D, E)}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    probs: ArrayNE
    choice: ArrayNK
    weight: ArrayNK
    renormalise: bool
    C: int | None
    kept: ArrayNK  # bool, False for padding
    gate: top_k.Cache


def route(
    params: Params,
    x: ArrayND,
    *,
    k: int,
    renormalise: bool,
    capacity_factor: float | None = None,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to those of its k largest logits whose experts have room: x (N, D) ->
    (Routing, cache). No noise.

    capacity_factor   C = ceil(factor · k·N/E) tokens per expert, N without padding; None: no limit.
                      It holds in training and in evaluation

    Raises InputError for k = 1 renormalised, where the router would learn nothing.
    """
    options = {"k": k, "renormalise": renormalise, "valid": valid, "training": training}
    routing, gate = top_k.route(params, x, **options, rng=rng)
    kept = np.ones(gate.choice.shape, bool)
    if gate.valid is not None:
        kept &= gate.valid[:, None]
    C = None
    if capacity_factor is not None:
        E = gate.w.shape[1]
        C = contract.capacity(int(np.count_nonzero(kept[:, 0])), E, k, capacity_factor)
        placed = contract.within_capacity(routing.expert, E, C)
        kept[kept] = placed
        token, expert, weight = (column[placed] for column in routing[:3])
        routing = routing._replace(token=token, expert=expert, weight=weight)
    x, w, probs, choice, weight = gate[:5]
    return routing, Cache(x, w, probs, choice, weight, renormalise, C, kept, gate)


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). Choices and places are held.

    Renormalised, the logit of a dropped choice gets a gradient through the weights of those choices
    of its token that were kept: it stands in the sum by which they are divided.
    """
    return top_k.logits_backward(_with_dropped(dweight, cache), dlogits, cache.gate)


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Choices and places are held."""
    return top_k.route_backward(_with_dropped(dweight, cache), dlogits, cache.gate)


def _with_dropped(dweight, cache):
    """dweight of the kept assignments -> of all that `top_k` gave, 0 at the dropped ones."""
    dweight = weighting.check_dweight(dweight, int(np.count_nonzero(cache.kept)))
    dchosen = np.zeros(cache.kept.shape, dweight.dtype)
    dchosen[cache.kept] = dweight
    valid = cache.gate.valid
    return (dchosen if valid is None else dchosen[valid]).ravel()


# --- the stages, for the step view ----------------------------------------------------------------

STAGES: tuple[Stage, ...] = (
    *top_k.STAGES,
    Stage(
        "places",
        r"\text{an expert takes its first } C",
        {"C": "", "kept": "N k"},
        "Tokens in their order; the weights of those that are kept stay as they are.",
        when=("C", True),
    ),
)
BACKWARD = top_k.BACKWARD
