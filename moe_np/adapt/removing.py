"""Removing experts (expert pruning): by their use, by the reconstruction loss of their layer, or at
random.

    by         which experts stay
    use        those with the largest sum of weights on a text
    loss       the set S that changes the output of the layer least on a text,
                   min_S ‖F_S(h) − F(h)‖²,  F_S the layer whose router knows S alone
               (Lu et al. 2024, arXiv 2402.14800, section 3.2). All sets are tried where they are
               at most MOST_SETS, else experts go one after the other
    random     any; the control

Every layer is looked at by itself, on what it reads in the whole model, and keeps equally many. The
columns of the router go with their experts, so that weights that are renormalised add up to 1 over
those that are left. Nothing is trained. Removing an expert that no token chose changes nothing on
these tokens where the weights are renormalised; where they are not, the softmax over fewer experts
gives larger weights.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from moe_np.adapt import layer_parts
from moe_np.adapt.layer_parts import Numbers, Seen
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayND, Rng
from moe_np.layers import mixture_layer
from moe_np.models.decoder_config import Config, Tree

WAYS = ("use", "loss", "random")
MOST_SETS = 1000

Sets = list[list[int]]  # per layer with a router the experts that stay, in order


def prune(
    config: Config,
    params: Tree,
    *,
    keep: int,
    by: str,
    ids: Annotated[Array, "B, T"] | None = None,
    rng: Rng | None = None,
) -> tuple[Config, Tree]:
    """Keep this number of experts in each layer with a router.

    ids   tokens of a text, for "use" and "loss"
    rng   for "random"

    Raises InputError for keep below k or above the number of experts, and for what is missing.
    """
    return remove(config, params, chosen_sets(config, params, keep=keep, by=by, ids=ids, rng=rng))


def chosen_sets(
    config: Config,
    params: Tree,
    *,
    keep: int,
    by: str,
    ids: Annotated[Array, "B, T"] | None = None,
    rng: Rng | None = None,
) -> Sets:
    """Which experts `prune` keeps; the arguments and the errors are the same."""
    layers = layer_parts.check_sparse(config, params)
    check_count(config, keep)
    if checks.choice("by", by, WAYS) == "random":
        rng = checks.generator("rng", rng)
        return [sorted(rng.permutation(config.experts)[:keep].tolist()) for _ in layers]
    if ids is None:
        raise InputError(f"ids: wanted the tokens of a text to remove by {by}, got None")
    seen = layer_parts.on_text(config, params, ids)
    if by == "use":
        return [_largest(layer_parts.use(of_layer), keep) for of_layer in seen]
    return [least_loss(config, params["layers"][of.layer], of, keep)[0] for of in seen]


def check_count(config: Config, keep: int) -> None:
    """Raise InputError unless k ≤ keep ≤ E: a token needs k experts."""
    k = layer_parts.choices(config)
    if not (isinstance(keep, (int, np.integer)) and k <= keep <= config.experts):
        limits = f"from k = {k} to {config.experts} experts"
        raise InputError(f"keep: wanted {limits}, because a token chooses k; got {keep}")


def _largest(values, keep):
    return sorted(np.argsort(-values, kind="stable")[:keep].tolist())


def remove(config: Config, params: Tree, kept: Sequence[Numbers]) -> tuple[Config, Tree]:
    """Keep these experts, one list per layer with a router, and their columns of the router.

    Raises InputError for lists of different lengths, for a number that does not exist or stands
    twice, and for fewer experts than a token chooses, so also where none is left.
    """
    layers = layer_parts.check_sparse(config, params)
    if len(kept) != len(layers):
        raise InputError(f"kept: wanted one list for {len(layers)} layers, got {len(kept)}")
    counts = {len(numbers) for numbers in kept}
    if len(counts) != 1:
        raise InputError(f"kept: wanted equally many experts per layer, got {sorted(counts)}")
    check_count(config, counts.pop())
    for numbers in kept:
        if len(set(map(int, numbers))) != len(numbers):
            raise InputError(f"kept: wanted every expert once, got {list(numbers)}")
        for number in numbers:
            checks.integer("kept", number, minimum=0, maximum=config.experts - 1)
    of_layer = dict(zip(layers, kept, strict=True))
    params = layer_parts.with_layers(
        params, lambda number, layer: layer_parts.take(layer, of_layer[number]), layers
    )
    return config._replace(experts=len(kept[0])), params


# --- the reconstruction loss ----------------------------------------------------------------------


def least_loss(config: Config, layer: Tree, seen: Seen, keep: int) -> tuple[list[int], float]:
    """The experts that stay in a layer, and the mean over tokens of ‖F_S(h) − F(h)‖² with them."""
    y = all_outputs(config, layer, seen.h)
    whole = list(range(config.experts))
    out = _combined(config, layer, seen.h, y, whole)

    def loss(numbers):
        difference = _combined(config, layer, seen.h, y, list(numbers)) - out
        return float(np.square(difference, dtype=np.float64).sum() / len(out))

    if math.comb(config.experts, keep) <= MOST_SETS:
        return _least(itertools.combinations(whole, keep), loss)
    kept = whole
    while len(kept) > keep:  # each time without the expert that is missed least
        kept, least = _least(([m for m in kept if m != gone] for gone in kept), loss)
    return kept, least if kept != whole else 0.0


def _least(sets, loss):
    losses = [(loss(numbers), list(numbers)) for numbers in sets]
    least, numbers = min(losses)
    return numbers, least


def all_outputs(config: Config, layer: Tree, h: ArrayND) -> Annotated[np.ndarray, "E, N, D"]:
    """The output of every expert for every token."""
    expert = mixture_layer.KINDS[config.expert]
    outputs = []
    for m in range(len(layer["experts"]["w2"])):
        params = {name: p[m : m + 1] for name, p in layer["experts"].items()}
        outputs.append(expert.forward(params, h, np.array([0, len(h)]))[0])
    return np.stack(outputs)


def _combined(config, layer, h, y, numbers):
    """The output of the routed experts (N, D) where the router knows the experts `numbers`."""
    router = mixture_layer.router_of(config.router)
    columns = {name: p[..., numbers] for name, p in layer["router"].items()}
    routing, _ = router.route(columns, h, training=False, **config.options)
    out = np.zeros_like(h)
    weighted = routing.weight[:, None] * y[np.asarray(numbers)[routing.expert], routing.token]
    np.add.at(out, routing.token, weighted)
    return out
