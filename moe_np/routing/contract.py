"""What a router is, how to write one, and what the routers share.

A router, also called a gating network, chooses for each of N tokens the experts that work on it,
and their weights. It returns a list of assignments, one row per assignment. A router is one file in
this folder; nothing else in the package has to know its name. It provides (`Router` below states
the same in a form that an editor checks):

    init(rng, d_model, n_experts, *, scale, dtype)              -> params, a dict of arrays
    route(params, x, *, OPTIONS, valid, training, rng)          -> (Routing, cache)    x (N, D)
    logits_backward(dweight, dlogits, cache)                    -> dlogits (N, E)
    route_backward(dweight, dlogits, cache)                     -> (dx (N, D), grads)

    CAUSAL     False if, with some option, the routing of a token depends on later tokens
    STAGES     the steps of `route` as data: what moe_np.show.walk shows, with the equations
    BACKWARD   the same for the backward pass
    EXAMPLE    options of `route` with which one tries the router on 8 tokens and 4 experts
               (EXAMPLE_INIT: options that its `init` needs, if it needs any)

Options are the router's own: `k`, `renormalise`, `capacity_factor` and so on. Three are common:

    valid      (N,) bool, False where a token is padding. Padding gets no row, takes no place, is
               not counted, draws no random number, and its row of dx is 0. None: no padding
    training   the only switch between training and evaluation; None means `rng is not None`
    rng        numpy.random.Generator for what is random in training; evaluation draws nothing.
               `check_training` resolves the two

`cache` is a NamedTuple: what the backward pass uses and what the stages show, each under the name
that its equation has. `scale` is a factor of a standard deviation (scale/√D for a matrix).

Backward, `dweight` (A,) comes from the layer that used the weights, and `dlogits` (N, E) or None
from load-balancing losses (auxiliary losses) on `Routing.logits`. `logits_backward` adds up both
into the gradient with respect to what the router computes linearly from x. Where that is two
products, it returns a NamedTuple of both. `route_backward` takes it through the linear map. Which
expert is chosen is not differentiated, except where a file states how.

To add a router NAME:

    1. moe_np/routing/NAME.py. top_k.py is a good example to start from; weighting.py has the pieces
       that many routers share, stages.py their equations.
    2. tests/routing/test_NAME.py, with CASES = {"NAME": Case(NAME, NAME.EXAMPLE)} from
       tests/support/routers.py: the tests of all routers then run on it too.

`moe_np.routing.routers()` then lists it, `moe_np.show.walk.route` shows it step by step, and
`moe-np run router_zoo` trains it beside the others.

Rules for all routers (each has a test): a dropped assignment is absent, not a row of zeros; the
lowest expert index wins a tie; evaluation is deterministic; noise belongs to the router and does
not change `x`; no argument is changed in place; the dtype is that of x.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import (
    Array,
    ArrayA,
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


class Routing(NamedTuple):
    """A assignments of N tokens to E experts. Their order is free; the routers here list them token
    by token, the best choice first.
    """

    token: ArrayA  # row of x
    expert: ArrayA
    weight: ArrayA  # what the expert's output is multiplied by
    logits: ArrayNE | None  # before any softmax; None for a router that learns none
    probs: ArrayNE  # scores of all experts; each row sums to 1 if they are a softmax
    demand: ArrayNE  # bool: the experts that each token asked for, before any capacity


class BalanceLoss(NamedTuple):
    """A load-balancing loss (auxiliary loss) of one routing: its value and its gradients, None for
    what it does not reach. moe_np/layers/balance.py has the losses and adds them up.
    """

    value: float
    dweight: ArrayA | None = None  # of Routing.weight, for route_backward
    dlogits: ArrayNE | None = None  # of Routing.logits, for route_backward
    dload: ArrayE | None = None  # of the expected load of noisy_top_k.py
    dthreshold: ArrayE | None = None  # of the thresholds of strictly_balanced.py


class Stage(NamedTuple):
    """One step of a router, as data: what `moe_np.show.walk.route` shows.

    arrays   {name: axes}: a field of the cache or of Routing, or a parameter; in BACKWARD also a
             gradient. Axes are separated by spaces, "N E"; "" for a number. What is None or absent
             is not shown; a stage of which nothing is left is not shown either
    when     (field of the cache, value): the stage holds only where the field has this value; the
             values True and False ask whether the field is set (not None, not 0, not False)
    """

    name: str  # "probabilities"
    equation: str  # LaTeX without dollar signs, or ""
    arrays: dict[str, str]
    note: str = ""  # one sentence for the reader
    when: tuple[str, Any] | None = None


class Router(Protocol):
    """What a module of this folder provides; the text above explains each of them."""

    CAUSAL: bool
    STAGES: tuple[Stage, ...]
    BACKWARD: tuple[Stage, ...]
    EXAMPLE: Options

    def init(self, rng: Rng, d_model: int, n_experts: int, /, *_: Any, **options: Any) -> Params:
        """New parameters."""
        ...

    def route(self, params: Params, x: ArrayND, /, *_: Any, **options: Any) -> tuple[Routing, Any]:
        """x (N, D) -> the assignments, and the cache of the backward pass."""
        ...

    def logits_backward(self, dweight: ArrayA, dlogits: ArrayNE | None, cache: Any) -> Any:
        """-> the gradient at the logits (N, E)."""
        ...

    def route_backward(
        self, dweight: ArrayA, dlogits: ArrayNE | None, cache: Any
    ) -> tuple[ArrayND, Params]:
        """-> dx (N, D) and the gradients of the parameters, with their names."""
        ...


# --- checks of what comes in ----------------------------------------------------------------------


ROUTER_MATRIX = {"w": ("D", "E")}


def check_inputs(
    params: Params,
    x: ArrayND,
    axes: Mapping[str, tuple[str, ...]] = ROUTER_MATRIX,
    *,
    finite: bool = True,
) -> tuple[Array, ...]:
    """Check the parameters against each other, and x (N, D) against the first of them: return x and
    the parameters in the order of `axes`, as arrays.

    axes     {name: axes}, as in `checks.params`; the first parameter has D
    finite   whether x is checked for NaN and infinity; the parameters are in any case

    Raises InputError for what is missing, does not fit, or is not finite, and without an expert.
    """
    arrays = checks.params("params", params, axes)
    name, w = next(iter(arrays.items()))
    if w.shape[axes[name].index("D") - 1] == 0:
        raise InputError(f"params[{name!r}]: wanted at least one expert, got none")
    x = checks.array("x", x, ("N", "D"), finite=finite)
    D = w.shape[axes[name].index("D")]
    if x.shape[1] != D:
        raise InputError(
            f"x: wanted {D} features per token, as params[{name!r}] has, got {x.shape[1]}"
        )
    if x.dtype != w.dtype:
        raise InputError(f"x: wanted {w.dtype}, the type of params[{name!r}], got {x.dtype}")
    return x, *arrays.values()


def check_init(
    rng: Rng, d_model: int, n_experts: int, scale: float = 1.0, dtype: DType = np.float64
) -> tuple[int, int]:
    """Check the arguments that the `init` of all routers have in common; return D and E."""
    checks.generator("rng", rng)
    checks.number("scale", scale, minimum=0, maximum=1e30)
    checks.float_type("dtype", dtype)
    return checks.size("d_model", d_model), checks.size("n_experts", n_experts)


def check_routing(routing: Routing) -> Routing:
    """Check a routing: arrays of the shapes and types that a router gives. Return it with arrays.

    Whether its tokens and experts exist is checked where they are used, in one pass with the use.
    """
    if not isinstance(routing, Routing):
        got = checks.text(type(routing).__name__)
        raise InputError(f"routing: wanted a Routing from a router, got {got}")
    probs = checks.array("routing.probs", routing.probs, ("N", "E"), finite=False)
    demand = checks.mask("routing.demand", routing.demand, probs.shape)
    weight = checks.array("routing.weight", routing.weight, ("A",), finite=False)
    indices = {}
    for name in ("token", "expert"):
        index = getattr(routing, name)
        if not isinstance(index, np.ndarray):
            index = checks.array(f"routing.{name}", index, None, kind="i")
        if index.shape != weight.shape or index.dtype.kind not in "iu":
            wanted = f"{len(weight)} integers, one per weight"
            raise InputError(f"routing.{name}: wanted {wanted}, got {index.dtype} {index.shape}")
        indices[name] = checks.array(f"routing.{name}", index, ("A",), kind="i")
    return routing._replace(weight=weight, probs=probs, demand=demand, **indices)


def check_k(k: int, n_experts: int) -> int:
    """Check the number of choices per token: 1 <= k <= E."""
    if checks.integer("k", k) > n_experts:
        raise InputError(f"k: wanted at most the {n_experts} experts there are, got {k}")
    return int(k)


def check_renormalise(renormalise: bool, k: int) -> None:
    """k = 1 renormalised gives every token the weight 1: the router would get a task gradient of
    exactly 0 (errata 4).
    """
    checks.boolean("renormalise", renormalise)
    if renormalise and k == 1:
        raise InputError(
            "renormalise: with k = 1 the renormalised weight is always 1, so the task's gradient "
            "of the router is 0 and it learns nothing; "
            "wanted renormalise=False (Switch) or k of at least 2"
        )


def check_training(
    training: bool | None, rng: Rng | None, noise: str | None = None
) -> tuple[bool, Rng | None]:
    """Whether this is training, and the generator to draw from: None in evaluation.

    training   None means training if there is a generator
    noise      what the router draws in training, None if it draws nothing. Raises InputError where
               training needs a generator for it and there is none
    """
    if rng is not None:
        checks.generator("rng", rng)
    if training is None:
        training = rng is not None
    if not isinstance(training, (bool, np.bool_)):
        raise InputError(f"training: wanted True, False or None, got {checks.text(training)}")
    if training and noise is not None and rng is None:
        raise InputError(
            f"rng: wanted a numpy.random.Generator with training=True, for {noise}; got None"
        )
    return bool(training), rng if training else None


def check_valid(valid: ArrayN | None, n_tokens: int) -> ArrayN:
    """Check the padding mask (N,) of bool, False where a token is padding; None means no padding.
    Return the mask.
    """
    if valid is None:
        return np.ones(n_tokens, bool)
    return checks.mask("valid", valid, (n_tokens,))


def check_padding(valid: ArrayN | None, n_tokens: int) -> ArrayN | None:
    """`check_valid` where None stays None: without padding there is nothing to mask."""
    return None if valid is None else check_valid(valid, n_tokens)


# --- the choice of experts ------------------------------------------------------------------------

ROUNDS = 8  # up to this number of choices, one pass over the scores per choice beats sorting them


def top_k(scores: ArrayNE, k: int) -> ArrayNK:
    """Indices (N, k) of the k largest of each row of scores (N, E), largest first; no NaN in them.

    The lowest index wins a tie. Equal to a stable sort of the rows, but faster: k rounds of
    arg-max, or for a larger k a sort that need not be stable. A row for which that is not certain
    (−inf among the k, ties) is sorted again.
    """
    choice, unsure = (_by_rounds if k <= ROUNDS else _by_sorting)(scores, k)
    if unsure.any():
        choice[unsure] = np.argsort(-scores[unsure], axis=1, kind="stable")[:, :k]
    return choice


def _by_rounds(scores, k):
    """k times the arg-max (the first of equals) of what is left. A taken entry becomes −inf; a row
    in which −inf is then the largest is unsure.
    """
    left = scores.copy()
    rows = np.arange(len(scores))
    choice = np.empty((len(scores), k), np.int64)
    unsure = np.zeros(len(scores), bool)
    for j in range(k):
        largest = choice[:, j] = left.argmax(axis=1)
        unsure |= left[rows, largest] == -np.inf
        left[rows, largest] = -np.inf
    return choice, unsure


def _by_sorting(scores, k):
    """A row without equal values has one order only, and any sort finds it; a row with two equal
    values is unsure.
    """
    if k < scores.shape[1]:  # the k largest and the next, which may equal the last of them
        order = np.argpartition(-scores, k, axis=1)[:, : k + 1]
        falling = np.argsort(-np.take_along_axis(scores, order, axis=1), axis=1)
        order = np.take_along_axis(order, falling, axis=1)
    else:
        order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    return order[:, :k], (ranked[:, 1:] == ranked[:, :-1]).any(axis=1)


def demand_of(choice: ArrayNK, n_experts: int, valid: ArrayN | None = None) -> ArrayNE:
    """choice (N, k) -> demand (N, E) bool; padding asks for no expert."""
    demand = np.zeros((len(choice), n_experts), bool)
    np.put_along_axis(demand, choice, True, axis=1)
    if valid is not None:
        demand &= valid[:, None]
    return demand


# --- the capacity of the experts ------------------------------------------------------------------


MOST = 2.0**53  # a capacity above this is no limit to any number of tokens


def capacity(n_tokens: int, n_experts: int, k: int, factor: float) -> int:
    """Expert capacity C = ceil(factor · N · k / E), at least 1, from the capacity factor: the most
    tokens that one expert takes (Switch, section 2.2).

    Rounding down would give 0, every token dropped, for short sequences (errata 9).
    """
    factor = checks.number("capacity_factor", factor, greater_than=0)
    C = min(factor * int(n_tokens) * k / n_experts, MOST)
    # 1.1 · 10 is 11.000000000000002: what rounding adds is not a place more
    return max(1, math.ceil(C - 4 * np.finfo(float).eps * C))


def within_capacity(expert: ArrayA, n_experts: int, C: int) -> ArrayA:
    """Mask (A,) of the assignments that find a place if each expert takes its first C in the order
    given.

    The order is the policy: first choices of all tokens before second ones (GShard), or the highest
    scores first.
    """
    order = np.argsort(expert, kind="stable")
    count = np.bincount(expert, minlength=n_experts)
    first = np.cumsum(count) - count
    place = np.empty(len(expert), np.int64)
    place[order] = np.arange(len(expert)) - first[expert[order]]
    return place < C
