"""Load-balancing losses over ranks, in groups of tokens.

A load-balancing loss is not linear in its tokens (errata 26): the mean of the losses of two halves
is not the loss of the whole. Per rank it asks that every rank uses all experts, which a rank whose
documents are of one kind should not; over the batch it asks that of all ranks together (Qiu et al.
2025, arXiv 2501.11873). So the group is an argument, one of `moe_np.parallel.groups`. For "batch"
the routing of all ranks is gathered: N·E numbers and not N·D.
"""

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array
from moe_np.layers import balance
from moe_np.layers.mixture_layer import Losses
from moe_np.parallel.exchanges import Exchange, Gather
from moe_np.parallel.groups import GROUPS, Routed
from moe_np.routing.contract import BalanceLoss, Routing


def balance_loss(
    losses: Losses,
    routed: Routed,
    *,
    group: str,
    valid: Sequence[Array] | None = None,
) -> Generator[Exchange, Any, BalanceLoss]:
    """Σ coefficient · loss: its value for the whole batch, the same on all ranks, and the gradients
    of this rank for `route_backward`.

    group   over which tokens a loss is taken: those that were routed together, or more. A loss of a
            group counts by its share of the tokens
    valid   (N,) bool of each piece, False at padding; None: no padding

    Raises InputError for a smaller group than the router's, and for the load loss of noisy top-k
    gating over a larger one, because it needs what the router drew.
    """
    losses = tuple(losses)
    if GROUPS.index(checks.choice("group", group, GROUPS)) < GROUPS.index(routed.group):
        raise InputError(
            f"group: wanted {routed.group}, as the router routed, or more, got {group}"
        )
    same = group == routed.group
    if not same and any(loss is balance.load for _, loss in losses):
        raise InputError(f"group: wanted {routed.group}, as the router routed, for the load loss")
    here = np.ones(len(routed.routing.demand), bool) if valid is None else np.concatenate(valid)
    gathered = yield Gather(here, "valid tokens")
    counted = np.concatenate(gathered)
    if group == "batch":
        whole = routed.parts[0] if same else (yield from _gathered(routed.routing))
        cache = routed.caches[0] if same else None
        added = _total(losses, whole, cache, counted, 1.0)
        return added if same else (yield from _of_rank(added, routed))
    tokens = max(int(counted.sum()), 1)
    parts, masks = [routed.routing], [here]
    caches = [None]
    if same:
        parts, masks, caches = routed.parts, np.split(here, routed.bounds[1:-1]), routed.caches
    terms = [
        _total(losses, part, cache, mask, float(mask.sum()) / tokens)
        for part, cache, mask in zip(parts, caches, masks, strict=True)
    ]
    gathered = yield Gather(np.array([term.value for term in terms]), "balance")
    value = sum(np.concatenate(gathered).tolist())  # in the order of the groups
    return _side_by_side(value, terms)


def _total(losses, routing, cache, valid, share):
    """The losses of one group."""
    pairs = []
    for coefficient, loss in losses:
        term = loss(cache) if loss is balance.load else loss(routing, valid=valid)
        pairs.append((coefficient * share, term))
    return balance.total(pairs)


def _side_by_side(value, terms):
    """The gradients of several groups as those of all their tokens; dload has one row per group."""
    joined = {}
    for name, put in (
        ("dlogits", np.concatenate),
        ("dweight", np.concatenate),
        ("dload", np.stack),
    ):
        arrays = [getattr(term, name) for term in terms]
        if all(array is not None for array in arrays):
            joined[name] = put(arrays)
    return BalanceLoss(value, **joined)


def _gathered(routing):
    """The routing of all ranks' tokens."""
    sizes = yield Gather(np.array([len(routing.demand)]), "tokens of a routing")
    first = np.cumsum([0, *np.concatenate(sizes)])
    columns: dict[str, Any] = {}
    for name, column in routing._asdict().items():
        columns[name] = None
        if column is not None:
            parts = yield Gather(column, f"{name} of a routing")
            if name == "token":
                parts = [part + start for part, start in zip(parts, first[:-1], strict=True)]
            columns[name] = np.concatenate(parts)
    return Routing(**columns)


def _of_rank(added, routed):
    """The gradients of the whole batch -> of this rank's tokens and assignments."""
    sizes = yield Gather(np.array([len(routed.routing.token)]), "assignments per rank")
    kept = {}
    counts = {"dlogits": routed.n_tokens, "dweight": np.concatenate(sizes)}
    for name, count in counts.items():
        first = int(count[: routed.rank].sum())
        array = getattr(added, name)
        kept[name] = None if array is None else array[first : first + int(count[routed.rank])]
    return added._replace(**kept)
