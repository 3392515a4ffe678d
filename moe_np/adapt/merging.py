"""Merging experts into one: their hidden units are aligned by a permutation, then averaged.

An expert with its hidden units in another order is the same function, so the mean of two experts
means something only after their units are matched. The units of an expert are matched with those of
a reference by the largest total similarity

    max_π Σ_u ⟨unit u of the reference, unit π(u) of the expert⟩        a linear assignment

where a unit is its column of w1, w3 and b1 and its row of w2 (Ainsworth et al. 2022, arXiv
2209.04836, section 3.2, for one hidden layer, where this is exact).

Which experts become one is a partition of each layer's experts into groups: `groups_by_use` is that
of Li et al. 2023 (arXiv 2310.01334, M-SMoE), in which the most used experts each take those whose
router logits are most like theirs, and use is the weight in the mean. The merged expert has the
mean of its members' columns of the router, with the same weights. `to_dense` merges all experts of
a layer, and there is no router.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from scipy.optimize import linear_sum_assignment

from moe_np.adapt import layer_parts
from moe_np.adapt.layer_parts import Numbers
from moe_np.adapt.removing import check_count
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayE, Params
from moe_np.models.decoder_config import Config, Tree

Permutation = Annotated[np.ndarray, "H"]
Groups = Sequence[Sequence[Numbers]]  # per layer with a router the groups of experts
ROWS = ("w2",)  # hidden units are its rows; the columns of every other parameter but b2


# --- hidden units ---------------------------------------------------------------------------------


def permuted(expert: Params, order: Permutation) -> Params:
    """The same function with its hidden units in this order: {name: (...)} without axis of experts.

    Unit u of the result is unit order[u] of the expert.
    """
    return {
        name: p.copy() if name == "b2" else (p[order] if name in ROWS else p[..., order])
        for name, p in expert.items()
    }


def alignment(expert: Params, reference: Params) -> Permutation:
    """The order of the units of `expert` in which they are most like those of `reference`.

    Raises InputError for experts of different shape.
    """
    _check_shapes([reference, expert])
    similarity = _units(reference) @ _units(expert).T
    return linear_sum_assignment(similarity, maximize=True)[1]


def _units(expert) -> Annotated[np.ndarray, "H, n"]:
    """All numbers that belong to each hidden unit, as rows."""
    parts = [
        p if name in ROWS else np.atleast_2d(p).T for name, p in expert.items() if name != "b2"
    ]
    return np.concatenate(parts, axis=1, dtype=np.float64)


def _check_shapes(experts):
    if not experts:
        raise InputError("experts: wanted at least one expert to merge, got none")
    layer_parts.stacked(experts)


def merge(
    experts: Sequence[Params],
    weights: Sequence[float] | ArrayE | None = None,
    *,
    align: bool = True,
) -> Params:
    """The weighted mean of experts, aligned to the one with the largest weight.

    weights   None: equal ones. They are divided by their sum; where all are 0, they are equal
    align     False leaves the units as they are

    Raises InputError for no expert, for experts of different shape, and for negative weights.
    """
    _check_shapes(experts)
    shares = _shares(weights, len(experts))
    reference = experts[int(shares.argmax())]
    mean = {name: np.zeros(p.shape, np.float64) for name, p in reference.items()}
    for expert, share in zip(experts, shares, strict=True):
        if align and expert is not reference:
            expert = permuted(expert, alignment(expert, reference))
        for name, p in expert.items():
            mean[name] += share * p
    return {name: p.astype(reference[name].dtype) for name, p in mean.items()}


def _shares(weights, n):
    if weights is None:
        return np.full(n, 1 / n)
    weights = checks.array("weights", np.asarray(weights, float), (n,))
    if (weights < 0).any():
        raise InputError(f"weights: wanted none below 0, got {weights.min()}")
    return weights / weights.sum() if weights.sum() > 0 else np.full(n, 1 / n)


# --- groups of experts ----------------------------------------------------------------------------


def groups_by_use(
    config: Config, params: Tree, ids: Annotated[Array, "B, T"], *, keep: int
) -> tuple[list[list[list[int]]], list[ArrayE]]:
    """-> per layer with a router `keep` groups, and the use of every expert on these tokens.

    The `keep` most used experts have a group each; every other expert joins the one whose router
    logits on the tokens have the largest cosine with its own.
    Raises InputError for keep below k or above the number of experts.
    """
    layer_parts.check_sparse(config, params)
    check_count(config, keep)
    seen = layer_parts.on_text(config, params, ids)
    use = [layer_parts.use(of_layer) for of_layer in seen]
    groups = [
        _groups(of_layer.routing.logits, used, keep)
        for of_layer, used in zip(seen, use, strict=True)
    ]
    return groups, use


def _groups(logits, use, keep):
    unit = logits / np.maximum(np.linalg.norm(logits, axis=0), 1e-30)
    cosine = unit.T @ unit
    leaders = np.sort(np.argsort(-use, kind="stable")[:keep])
    groups = {int(leader): [int(leader)] for leader in leaders}
    for m in range(len(use)):
        if m not in groups:
            groups[int(leaders[cosine[m, leaders].argmax()])].append(m)
    return list(groups.values())


def merge_groups(
    config: Config,
    params: Tree,
    groups: Groups,
    weights: Sequence[ArrayE] | None = None,
    *,
    align: bool = True,
) -> tuple[Config, Tree]:
    """One expert per group, with the weighted mean of the columns of the router.

    groups    per layer with a router; together they have every expert once
    weights   per layer and expert, such as the use; None: equal

    Raises InputError for groups that are no partition, of different number in different layers, or
    fewer than a token chooses.
    """
    layers = layer_parts.check_sparse(config, params)
    if len(groups) != len(layers):
        raise InputError(f"groups: wanted groups for {len(layers)} layers, got {len(groups)}")
    for of_layer in groups:
        members = sorted(int(m) for group in of_layer for m in group)
        if members != list(range(config.experts)) or not all(len(group) for group in of_layer):
            raise InputError(
                f"groups: wanted each of {config.experts} experts once, got {of_layer}"
            )
    counts = {len(of_layer) for of_layer in groups}
    if len(counts) != 1:
        raise InputError(f"groups: wanted equally many per layer, got {sorted(counts)}")
    check_count(config, len(groups[0]))

    def merged(number, layer):
        place = layers.index(number)
        use = None if weights is None else weights[place]
        return _with_groups(layer, groups[place], use, align)

    config = config._replace(experts=len(groups[0]))
    return config, layer_parts.with_layers(params, merged, layers)


def _with_groups(layer, groups, use, align):
    layer = layer_parts.copied(layer)
    experts = []
    columns = []
    for group in groups:
        shares = _shares(None if use is None else np.asarray(use)[group], len(group))
        members = [layer_parts.expert_of(layer, m) for m in group]
        experts.append(merge(members, shares, align=align))
        columns.append({name: p[..., group] @ shares for name, p in layer["router"].items()})
    layer["experts"] = layer_parts.stacked(experts)
    layer["router"] = {
        name: np.stack([column[name] for column in columns], axis=-1).astype(p.dtype)
        for name, p in layer["router"].items()
    }
    return layer


def to_dense(
    config: Config,
    params: Tree,
    weights: Sequence[ArrayE] | None = None,
    *,
    align: bool = True,
) -> tuple[Config, Tree]:
    """All experts of each layer merged into one network: a dense decoder without routers.

    Raises InputError for shared experts, and for dense layers of another width, which a dense
    decoder cannot have.
    """
    layers = layer_parts.check_sparse(config, params)
    new = dense_config(config)

    def merged(number, layer):
        members = [layer_parts.expert_of(layer, m) for m in range(config.experts)]
        use = None if weights is None else weights[layers.index(number)]
        return as_dense(layer, merge(members, use, align=align))

    return new, layer_parts.with_layers(params, merged, layers)


def as_dense(layer: Tree, expert: Params) -> Tree:
    """A copy of a layer with this expert as its feed-forward network and without a router."""
    layer = {name: layer_parts.copied(p) for name, p in layer.items() if name != "router"}
    layer["experts"] = layer_parts.stacked([expert])
    return layer


def dense_config(config: Config, *, hidden: int | None = None) -> Config:
    """The config of a dense decoder whose networks have the width of one expert, or `hidden`.

    Raises InputError for shared experts and for dense layers of another width.
    """
    if config.shared:
        raise InputError(f"config: wanted no shared experts, got {config.shared}")
    hidden = hidden or config.hidden
    wide = config.dense_hidden or config.hidden
    if config.dense_layers and wide != hidden:
        raise InputError(f"config: wanted dense layers of {hidden} hidden units, got {wide}")
    changes = {"hidden": hidden, "dense_hidden": None, "dense_layers": (), "router": "top_k"}
    return config._replace(experts=1, options={"k": 2, "renormalise": True}, **changes)
