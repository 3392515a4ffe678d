"""Weights that a router may have for given logits: the right ones, and those of known errors.

Each candidate is a function of logits (N, E), computed with the routers of `moe_np.routing`, whose
matrix is the identity here. A router under audit is named by the candidate that its weights equal.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.types import ArrayE, ArrayNE, ArrayNK
from moe_np.routing import (
    bias_balanced,
    biased_top_k,
    contract,
    dense,
    expert_choice,
    gshard,
    st_moe,
    switch,
    top_k,
)
from moe_np.routing.contract import Routing


class Candidate(NamedTuple):
    """A rule for the weights, with a name, and an erratum where the rule is an error."""

    name: str
    gate: Callable[[ArrayNE], ArrayNE]
    verdict: str = "right"
    erratum: int | None = None
    note: str = ""


def matrix(routing: Routing) -> ArrayNE:
    """The assignments of a routing as dense weights (N, E)."""
    gate = np.zeros(routing.demand.shape)
    gate[routing.token, routing.expert] = routing.weight
    return gate


def _of(router, **options):
    """logits (N, E) -> dense weights of a router whose matrix is the identity."""

    def gate(logits):
        E = logits.shape[1]
        params = {"w": np.eye(E)}
        if "bias" in options:
            params["bias"] = options["bias"]
        rest = {name: value for name, value in options.items() if name != "bias"}
        return matrix(router.route(params, logits, **rest)[0])

    return gate


def placed(choice: ArrayNK, weight: ArrayNK, E: int, C: int, rank_first: bool) -> ArrayNE:
    """Dense weights after capacity C, in the order of the tokens, or all first choices first."""
    N, k = choice.shape
    experts = choice.T.ravel() if rank_first else choice.ravel()
    kept = contract.within_capacity(experts, E, C)
    kept = kept.reshape(k, N).T if rank_first else kept.reshape(N, k)
    gate = np.zeros((N, E))
    np.put_along_axis(gate, choice, weight * kept, axis=1)
    return gate


def _with_capacity(k, factor, renormalise, rank_first, after):
    """Top-k with capacity; `after` renormalises what is kept."""

    def gate(logits):
        N, E = logits.shape
        choice = contract.top_k(logits, k)
        weight = np.take_along_axis(numerics.softmax(logits), choice, axis=1)
        if renormalise and not after:
            weight = weight / weight.sum(axis=1, keepdims=True)
        g = placed(choice, weight, E, contract.capacity(N, E, k, factor), rank_first)
        total = g.sum(axis=1, keepdims=True)
        return g / np.where(total > 0, total, 1) if after else g

    return gate


def _fixed(logits, k, C, renormalise):
    choice = contract.top_k(logits, k)
    weight = np.take_along_axis(numerics.softmax(logits), choice, axis=1)
    if renormalise:
        weight = weight / weight.sum(axis=1, keepdims=True)
    return placed(choice, weight, logits.shape[1], C, False)


def right_ones(
    k: int, E: int, factor: float | None, bias: ArrayE | None, places: int | None = None
) -> Iterator[Candidate]:
    """Rules of the literature."""
    yield Candidate("dense", _of(dense))
    if k >= 2:
        yield Candidate(
            f"top_k(k={k}, renormalise=True)",
            _of(top_k, k=k, renormalise=True),
            note="renormalised: a softmax over the kept logits (Mixtral, GShard)",
        )
    yield Candidate(
        f"top_k(k={k}, renormalise=False)",
        _of(top_k, k=k, renormalise=False),
        note="not renormalised: the probabilities of a softmax over all (Switch, DeepSeekMoE)",
    )
    if bias is not None:
        yield from _biased(k, bias)
    for renormalise in (True, False) if k >= 2 else (False,):
        zero = np.zeros(E)
        yield Candidate(
            f"bias_balanced(k={k}, renormalise={renormalise})",
            _of(bias_balanced, k=k, renormalise=renormalise, bias=zero),
            note="weights are sigmoids of the logits",
        )
    if k <= 2 <= E:
        yield Candidate("st_moe(of='first')", _of(st_moe))
        yield Candidate("st_moe(of='pair')", _of(st_moe, of="pair"))
    if factor is not None:
        yield from _limited(k, E, factor)
    if places is not None:
        for renormalise in (True, False) if k > 1 else (False,):
            yield Candidate(
                f"top_k(k={k}, renormalise={renormalise}), {places} places per expert",
                lambda z, r=renormalise: _fixed(z, k, places, r),
            )
    for c in (1.0, 2.0, *(() if factor is None else (factor,))):
        yield Candidate(
            f"expert_choice(capacity_factor={c:g})", _of(expert_choice, capacity_factor=c)
        )


def _biased(k, bias):
    for renormalise in (True, False) if k >= 2 else (False,):
        options = {"k": k, "renormalise": renormalise, "bias": bias}
        name = f"bias_balanced(k={k}, renormalise={renormalise})"
        note = "sigmoid scores; the bias enters the selection only"
        yield Candidate(name, _of(bias_balanced, **options), note=note)
        yield Candidate(
            f"top_k(k={k}, renormalise={renormalise}) with a bias in the selection",
            lambda logits, r=renormalise: _selected(numerics.softmax(logits), bias, k, r),
            note="softmax scores; the bias enters the selection only",
        )
        name = f"biased_top_k(k={k}, renormalise={renormalise})"
        yield Candidate(name, _of(biased_top_k, **options), note="the bias is added to the logits")


def _selected(scores, bias, k, renormalise, leak=False):
    """Weights are the scores of the k largest scores + bias."""
    choice = contract.top_k(scores + bias, k)
    weight = np.take_along_axis(scores + bias if leak else scores, choice, axis=1)
    if renormalise:
        weight = weight / weight.sum(axis=1, keepdims=True)
    gate = np.zeros(scores.shape)
    np.put_along_axis(gate, choice, weight, axis=1)
    return gate


def _limited(k, E, factor):
    """With a capacity."""
    if k == 1:
        yield Candidate(f"switch(capacity_factor={factor:g})", _of(switch, capacity_factor=factor))
    if k == 2 <= E:
        yield Candidate(
            f"gshard(capacity_factor={factor:g})",
            _of(gshard, capacity_factor=factor),
            note="renormalised before the capacity; all first choices come first",
        )
    for renormalise in (True, False) if k > 1 else (False,):
        for rank_first in (True, False):
            for after in (False, True) if renormalise else (False,):
                order = "first choices first" if rank_first else "token by token"
                name = f"top_k(k={k}, renormalise={renormalise}), capacity_factor={factor:g}"
                when = " after the capacity" if after else ""
                yield Candidate(
                    name,
                    _with_capacity(k, factor, renormalise, rank_first, after),
                    "convention" if after else "right",
                    3 if after else None,
                    f"places {order}; renormalised{when}" if renormalise else f"places {order}",
                )


def known_errors(k: int, E: int, bias: ArrayE | None) -> Iterator[Candidate]:
    """Rules that public code uses and that are wrong, with the number of their erratum."""

    def kept(scores, weight_of):
        choice = contract.top_k(scores, k)
        gate = np.zeros(scores.shape)
        weight = weight_of(np.take_along_axis(scores, choice, axis=1))
        np.put_along_axis(gate, choice, weight, axis=1)
        return gate

    if k > 1:
        yield Candidate(
            "softmax of the kept probabilities",
            lambda z: kept(numerics.softmax(z), numerics.softmax),
            "wrong",
            3,
            "a softmax is taken twice: of the logits, and again of the kept probabilities",
        )
    yield Candidate(
        "softmax of logits that are masked with 0",
        lambda z: numerics.softmax(z * contract.demand_of(contract.top_k(z, k), E)),
        "wrong",
        3,
        "unselected logits are set to 0 and not to −∞, so unselected experts have weights",
    )
    yield Candidate(
        "softmax over the tokens",
        lambda z: numerics.softmax(z, axis=0),
        "wrong",
        13,
        "the softmax runs over the tokens of the batch, not over the experts",
    )
    for renormalise in (True, False):
        yield Candidate(
            "the k smallest logits",
            lambda z, r=renormalise: _selected(numerics.softmax(z), -4.0 * rank(z), k, r),
            "wrong",
            None,
            "the smallest are chosen",
        )
    for lost in range(k if k > 1 else 0):
        for renormalise in (True, False):
            yield Candidate(
                f"only choice {lost + 1} of {k}",
                lambda z, j=lost, r=renormalise: _only(z, k, j, r),
                "wrong",
                12,
                "of the k rows of a token only one is kept: duplicates are lost in a scatter",
            )
    if bias is not None:
        yield from _leaks(k, bias)


def _leaks(k, bias):
    for score in (numerics.sigmoid, numerics.softmax):
        for renormalise in (True, False):
            yield Candidate(
                "the selection bias in the weights",
                lambda z, s=score, r=renormalise: _selected(s(z), bias, k, r, leak=True),
                "wrong",
                19,
                "the weights contain the bias, which is for the selection only",
            )
        for renormalise in (True, False):
            biased = top_k if k > 1 or not renormalise else None
            if biased is not None and score is numerics.softmax:
                yield Candidate(
                    "the selection bias in the logits of the weights",
                    lambda z, r=renormalise: _of(top_k, k=k, renormalise=r)(z + bias),
                    "wrong",
                    19,
                    "the weights are a softmax of biased logits",
                )


def _only(logits, k, j, renormalise):
    choice = contract.top_k(logits, k)
    weight = np.take_along_axis(numerics.softmax(logits), choice, axis=1)
    if renormalise:
        weight = weight / weight.sum(axis=1, keepdims=True)
    gate = np.zeros(logits.shape)
    rows = np.arange(len(logits))
    gate[rows, choice[:, j]] = weight[:, j]
    return gate


def rank(logits: ArrayNE) -> ArrayNE:
    """0 for the smallest logit of a row, E − 1 for the largest."""
    return logits.argsort(axis=1).argsort(axis=1)


def one_hot(logits: ArrayNE) -> ArrayNE:
    """Weight 1 for the arg-max."""
    return contract.demand_of(contract.top_k(logits, 1), logits.shape[1]).astype(np.float64)
