"""The experts of a decoder's layer over ranks, and what the layers of `decoder_parallel` have in
common. A dense layer, and shared experts, work on each piece by itself, on every rank.
"""

import inspect
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.params import leaves
from moe_np.base.types import Array, ArrayE, ArrayND, Rng
from moe_np.layers import mixture_layer, shared_experts, sparse_layer
from moe_np.layers.experts import Expert
from moe_np.layers.mixture_layer import Losses
from moe_np.models import decoder
from moe_np.models.decoder_config import Config, Tree
from moe_np.parallel import balance_in_groups, expert_parallel, groups, placement
from moe_np.parallel.exchanges import Exchange, Gather
from moe_np.parallel.placement import Placement
from moe_np.routing.contract import BalanceLoss


class Piece(NamedTuple):
    """Some sequences of a batch."""

    ids: decoder.ArrayBT
    targets: decoder.ArrayBT
    valid: decoder.ArrayBT | None = None  # False at padding
    rng: Rng | None = None  # of dropout, and of routers that draw


class Setting(NamedTuple):
    """What a rank needs to know, beside parameters and pieces."""

    config: Config
    rank: int
    placed: Placement
    losses: Losses = decoder.SWITCH_LOSS
    group: str | None = None  # in which the router routes, `moe_np.parallel.groups`
    balance_group: str = "batch"  # over which load-balancing losses are taken


class Step(NamedTuple):
    """What all blocks have in common."""

    setting: Setting
    pieces: Sequence[Piece]
    batches: list[decoder.Batch]
    expert: Expert
    group: str
    rng: Rng | None


class Mixture(NamedTuple):
    """What the backward pass of the experts of a layer needs."""

    routed: groups.Routed
    added: BalanceLoss
    experts: expert_parallel.Cache
    shared: list[Any] | None  # per piece


def unzip(pairs: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Pairs -> the list of their first values, and that of their second ones."""
    return [first for first, _ in pairs], [second for _, second in pairs]


def mixture_forward(
    params: Tree, rows: list[ArrayND], step: Step
) -> Generator[Exchange, Any, tuple[list[ArrayND], "Mixture | list[Any]"]]:
    """The layer of `moe_np.layers.mixture_layer`: rows (N, D) of each piece -> m (N, D), cache."""
    setting, config = step.setting, step.setting.config
    if "router" not in params:
        pairs = [
            mixture_layer.forward(
                params,
                part,
                expert=step.expert,
                router=mixture_layer.router_of("top_k"),
                options={},
            )
            for part in rows
        ]
        return unzip(pairs)
    router = mixture_layer.router_of(config.router)
    routed = yield from groups.route(
        *(router, params["router"], rows),
        group=step.group,
        options=config.options,
        rank=setting.rank,
        facts=[_facts(piece, router, setting) for piece in step.pieces],
        rng=step.rng,
    )
    masks = [piece.valid.ravel() for piece in step.pieces if piece.valid is not None]
    valid = masks or None  # either all pieces have padding, or none
    bigger = max(step.group, setting.balance_group, key=groups.GROUPS.index)
    added = yield from balance_in_groups.balance_loss(
        setting.losses, routed, group=bigger, valid=valid
    )
    x = np.concatenate(rows)
    out, cache = yield from expert_parallel.forward(
        *(params["experts"], x, routed.routing, step.expert, setting.rank, setting.placed),
        first_token=int(routed.n_tokens[: setting.rank].sum()),
    )
    m = np.split(out, np.cumsum([len(part) for part in rows])[:-1])
    shared = None
    if "shared" in params:
        pairs = [_shared_forward(params, part, step.expert) for part in rows]
        m = [part + added_rows for part, (added_rows, _) in zip(m, pairs, strict=True)]
        shared = [kept for _, kept in pairs]
    return m, Mixture(routed, added, cache, shared)


def _facts(piece, router, setting):
    """The arguments of `route` that a piece has."""
    facts = {"training": True, "rng": piece.rng}
    if piece.valid is not None:
        facts["valid"] = piece.valid.ravel()
    if "ids" in inspect.signature(router.route).parameters:
        facts |= {"ids": piece.ids.ravel(), "n_experts": setting.placed.n_experts}
    return facts


def mixture_backward(
    dm: list[ArrayND],
    mixture: "Mixture | list[Any]",
    i: int,
    step: Step,
    parts: list[dict[str, Array]],
    grads: dict[str, Array],
) -> Generator[Exchange, Any, list[ArrayND]]:
    """dm (N, D) of each piece -> dh (N, D). `parts` gets the gradients of each piece, by their path
    in the model, and `grads` those of routed experts and router, which are complete.
    """
    name = f"layers.{i}"
    if not isinstance(mixture, Mixture):
        dh = []
        for n, (d, cache) in enumerate(zip(dm, mixture, strict=True)):
            back, dparams = mixture_layer.backward(d, cache)
            dh.append(back)
            parts[n] |= {f"{name}.{path}": g for path, g in leaves(dparams).items()}
        return dh
    setting = step.setting
    dx, dexperts, dweight = yield from expert_parallel.backward(np.concatenate(dm), mixture.experts)
    dexperts = yield from placement.summed_replicas(dexperts, setting.rank, setting.placed, name)
    dgate, drouter = yield from groups.route_backward(
        dweight, mixture.added, mixture.routed, f"{name}.router"
    )
    grads |= {f"{name}.experts.{path}": g for path, g in dexperts.items()}
    grads |= {f"{name}.router.{path}": g for path, g in drouter.items()}
    dh = np.split(dx + dgate, np.cumsum([len(d) for d in dm])[:-1])
    if mixture.shared is not None:
        for n, (d, kept) in enumerate(zip(dm, mixture.shared, strict=True)):
            back, dparams = _shared_backward(d, kept)
            dh[n] = dh[n] + back
            parts[n] |= {f"{name}.{path}": g for path, g in leaves(dparams).items()}
    return dh


class _Shared(NamedTuple):
    experts: sparse_layer.Cache
    gate: tuple[ArrayND, Array, Array] | None  # h, w, σ(h·w)


def _shared_forward(params, h, expert):
    """σ(h·w) Σ_j S_j(h) of one piece."""
    n_shared = len(next(iter(params["shared"].values())))
    routing = shared_experts.routing(len(h), n_shared, h.dtype)
    gate = None
    if "shared_gate" in params:
        w = params["shared_gate"]["w"]
        share = numerics.sigmoid(h @ w)[:, 0]
        routing = routing._replace(weight=np.repeat(share, n_shared))
        gate = (h, w, share)
    out, cache = sparse_layer.forward(params["shared"], h, routing, expert)
    return out, _Shared(cache, gate)


def _shared_backward(dout, kept):
    dh, dshared, dweight = sparse_layer.backward(dout, kept.experts)
    grads = {"shared": dshared}
    if kept.gate is not None:
        h, w, share = kept.gate
        dlogit = numerics.sigmoid_backward(dweight.reshape(len(h), -1).sum(axis=1), share)[:, None]
        dh = dh + dlogit @ w.T
        grads["shared_gate"] = {"w": h.T @ dlogit}
    return dh, grads


def loads(
    mixtures: Sequence[Any],
) -> Generator[Exchange, Any, tuple[tuple[ArrayE, ...], tuple[float, ...]]]:
    """The loads of the experts, and the dropped shares, over all ranks; of layers with a router."""
    load, dropped = [], []
    for mixture in mixtures:
        if isinstance(mixture, Mixture):
            routing = mixture.routed.routing
            kept = np.bincount(routing.expert, minlength=routing.demand.shape[1])
            wanted = routing.demand.sum()
            gathered = yield Gather(np.append(kept, wanted)[None], "loads")
            total = np.concatenate(gathered).sum(axis=0)
            load.append(total[:-1])
            dropped.append(float(1 - total[:-1].sum() / max(total[-1], 1)))
    return tuple(load), tuple(dropped)
