"""Parts of a decoder's layers: which layers have a router, their experts with the router's columns,
and what the layers read and choose on a text.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.params import map_leaves
from moe_np.base.types import Array, ArrayND, Params
from moe_np.layers import norms
from moe_np.models import decoder, decoder_config
from moe_np.models.decoder_config import Config, Tree
from moe_np.routing.contract import Routing

Numbers = Sequence[int] | Annotated[np.ndarray, "m"]  # of experts

# routers each of whose parameters has one column per expert, on its last axis
WITH_COLUMNS = (
    *("top_k", "biased_top_k", "capacity_top_k", "noisy_top_k"),
    *("switch", "bias_balanced", "top_p"),
)


def check(config: Config, params: Tree) -> None:
    """Raise InputError for what is no decoder, or does not fit its config."""
    decoder_config.check(config)
    decoder_config.check_params(params, config)
    for number, layer in enumerate(params["layers"]):
        if not isinstance(layer.get("experts"), dict):
            raise InputError(f"params: wanted arrays in layer {number}, got experts in their files")


def sparse_layers(config: Config) -> list[int]:
    """The numbers of the layers with a router."""
    return [i for i in range(config.layers) if not decoder_config.is_dense(config, i)]


def check_sparse(config: Config, params: Tree) -> list[int]:
    """`check`, and the layers with a router. Raises InputError without one, and for a router whose
    experts cannot be numbered anew.
    """
    check(config, params)
    layers = sparse_layers(config)
    if not layers:
        raise InputError("config: wanted a model with several experts in a layer, got a dense one")
    checks.choice("config.router", config.router, WITH_COLUMNS)
    return layers


def choices(config: Config) -> int:
    """The number of experts per token: k, or 1 for a router without this option."""
    return int(config.options.get("k", 1))


def renormalised(config: Config) -> bool:
    """Whether the weights of a token's experts add up to 1."""
    return bool(config.options.get("renormalise", False))


def copied(params: Any) -> Any:
    """The same nested arrays, each a copy."""
    return map_leaves(np.array, params)


def with_layers(params: Tree, change: Callable[[int, Tree], Tree], layers: Sequence[int]) -> Tree:
    """A copy of the parameters with change(number, layer) in place of these layers."""
    changed = [
        change(number, layer) if number in layers else copied(layer)
        for number, layer in enumerate(params["layers"])
    ]
    rest = {name: copied(part) for name, part in params.items() if name != "layers"}
    return {**rest, "layers": changed}


def take(layer: Tree, numbers: Numbers) -> Tree:
    """A copy of a layer with the experts of these numbers and their columns of the router."""
    numbers = np.asarray(numbers)
    layer = copied(layer)
    layer["experts"] = {name: p[numbers] for name, p in layer["experts"].items()}
    layer["router"] = {name: p[..., numbers] for name, p in layer["router"].items()}
    return layer


def expert_of(layer: Tree, number: int) -> Params:
    """One expert without the axis of experts, as views."""
    return {name: p[number] for name, p in layer["experts"].items()}


def stacked(experts: Sequence[Params]) -> Params:
    """Experts of equal shape with the axis of experts: {name: (len(experts), ...)}.

    Raises InputError where their shapes differ.
    """
    shapes = [{name: p.shape for name, p in expert.items()} for expert in experts]
    for shape in shapes:
        if shape != shapes[0]:
            raise InputError(f"experts: wanted experts of one shape, got {shapes[0]} and {shape}")
    return {name: np.stack([expert[name] for expert in experts]) for name in experts[0]}


# --- on a text ------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What the layer with a router of this number read and chose."""

    layer: int
    h: ArrayND  # what router and experts read, after the norm
    routing: Routing


def on_text(
    config: Config, params: Tree, ids: Annotated[Array, "B, T"], *, batch: int = 8
) -> list[Seen]:
    """What each layer with a router reads and chooses on these tokens, N = B·T, in evaluation."""
    layers = check_sparse(config, params)
    ids = checks.array("ids", ids, ("B", "T"), kind="i")
    if not ids.size:
        raise InputError("ids: wanted at least one token, got none")
    caches = [
        decoder.hidden(params, ids[low : low + batch], config)[1].blocks
        for low in range(0, len(ids), batch)
    ]
    seen = []
    for number in layers:
        of_layer = [blocks[number] for blocks in caches]
        normed = [norms.rms_forward_numpy(b.norm2.g, b.norm2.x, config.eps)[0] for b in of_layer]
        h = [rows.reshape(-1, config.d_model) for rows in normed]
        routings = [block.mixture.routing for block in of_layer]
        seen.append(Seen(number, np.concatenate(h), _joined(routings, [len(rows) for rows in h])))
    return seen


def _joined(routings, counts):
    """One routing of several batches of tokens."""
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    token = [routing.token + low for routing, low in zip(routings, first, strict=True)]
    fields = {"token": np.concatenate(token)}
    for name in ("expert", "weight", "probs", "demand"):
        fields[name] = np.concatenate([getattr(routing, name) for routing in routings])
    logits = [routing.logits for routing in routings if routing.logits is not None]
    return Routing(**fields, logits=np.concatenate(logits) if logits else None)


def use(seen: Seen) -> Annotated[np.ndarray, "E"]:
    """The sum of the weights that each expert got."""
    n_experts = seen.routing.probs.shape[1]
    return np.bincount(seen.routing.expert, seen.routing.weight, n_experts)
