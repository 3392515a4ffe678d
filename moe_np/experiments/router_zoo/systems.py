"""The systems of the router zoo: every router with the load-balancing losses of its paper.

A router of `moe_np.routing` that the table does not name joins by itself, under the name of its
module: with the options of its EXAMPLE, and with Switch's loss if it has logits. To give a router
other options or losses, write a line of the table.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from moe_np import routing
from moe_np.base.types import ArrayA, ArrayN, ArrayND, ArrayNE, Options, Params, Rng
from moe_np.experiments.router_zoo import soft_mixture
from moe_np.layers import balance, soft_moe
from moe_np.layers.balance import BalanceLoss
from moe_np.models.associative_memory import Forward, RouterSetup
from moe_np.routing import (
    base_assignment,
    bias_balanced,
    dense,
    expert_choice,
    gradient_estimators,
    gshard,
    hashing,
    hierarchical,
    kmeans,
    noisy_top_k,
    st_moe,
    strictly_balanced,
    switch,
    top_k,
    top_p,
)
from moe_np.routing.contract import Router, Routing

GROUP = 64  # keys that BASE assigns together

# --- a router in groups ---------------------------------------------------------------------------


class InGroups(NamedTuple):
    """A router that routes each `size` tokens by themselves, as GShard's groups and the workers of
    BASE do. It has the functions of the router.
    """

    router: Router
    size: int

    def init(self, rng: Rng, d_model: int, n_experts: int, **options: Any) -> Params:
        """The parameters of the router."""
        return self.router.init(rng, d_model, n_experts, **options)

    def route(
        self, params: Params, x: ArrayND, *, valid: ArrayN | None = None, **options: Any
    ) -> tuple[Routing, list]:
        """x (N, D) -> (Routing, cache); the last group may be smaller."""
        groups = [slice(i, i + self.size) for i in range(0, max(len(x), 1), self.size)]
        parts = []
        for group in groups:
            mask = None if valid is None else valid[group]
            parts.append(self.router.route(params, x[group], valid=mask, **options))
        moved = [
            routed._replace(token=routed.token + group.start)
            for group, (routed, _) in zip(groups, parts, strict=True)
        ]
        return Routing(*(np.concatenate(field) for field in zip(*moved, strict=True))), parts

    def route_backward(
        self, dweight: ArrayA, dlogits: ArrayNE | None, cache: list
    ) -> tuple[ArrayND, Params]:
        """dweight (A,), dlogits (N, E) or None -> dx (N, D), gradients of the parameters."""
        ends = np.cumsum([len(routed.token) for routed, _ in cache])[:-1]
        dweights = np.split(dweight, ends)
        dlogits_parts = [None] * len(cache)
        if dlogits is not None:
            dlogits_parts = np.split(dlogits, range(self.size, len(dlogits), self.size))
        parts = [
            self.router.route_backward(dw, dl, group_cache)
            for dw, dl, (_, group_cache) in zip(dweights, dlogits_parts, cache, strict=True)
        ]
        grads = {name: sum(g[name] for _, g in parts) for name in parts[0][1]}
        return np.concatenate([dx for dx, _ in parts]), grads


# --- losses ---------------------------------------------------------------------------------------

Losses = Iterable[tuple[float, BalanceLoss]]


def switch_loss(coefficient: float) -> Callable[[Forward], Losses]:
    """Switch's loss with this coefficient, as `RouterSetup.losses` wants it."""
    return lambda forward: [(coefficient, balance.switch(forward.routing))]


def switch_loss_of_logits(forward: Forward) -> Losses:
    """Switch's loss for a router of which nothing is known: none where it has no logits."""
    if forward.routing.logits is None:
        return []
    return [(0.01, balance.switch(forward.routing))]


def gshard_loss(forward: Forward) -> Losses:
    """GShard's loss times E²: 1 at balance, as Switch's."""
    E = forward.routing.probs.shape[1]
    return [(0.01 * E**2, balance.gshard(forward.routing))]


def st_moe_losses(forward: Forward) -> Losses:
    """GShard's loss and the z-loss."""
    return [*gshard_loss(forward), (1e-3, balance.z_loss(forward.routing))]


def importance_loss(forward: Forward) -> Losses:
    """The importance loss of Shazeer et al. 2017."""
    return [(0.1, balance.importance(forward.routing))]


def importance_and_load_losses(forward: Forward) -> Losses:
    """The importance loss and the load loss of Shazeer et al. 2017, of noisy_top_k.py."""
    return [*importance_loss(forward), (0.1, balance.load(forward.cache))]


def threshold_loss(forward: Forward) -> Losses:
    """Eq. (20) of Shazeer et al. 2017, as a mean over tokens and to the thresholds alone."""
    loss = strictly_balanced.threshold_loss(forward.cache)
    N = len(forward.token_loss)
    return [(1.0, BalanceLoss(loss.value / N, dthreshold=loss.dthreshold / N))]


def top_p_losses(forward: Forward) -> Losses:
    """Switch's loss, and the entropy loss of Huang et al. 2024."""
    entropy = balance.token_entropy(forward.routing)
    return [(0.01, balance.switch(forward.routing)), (1e-4, entropy)]


def reinforce_and_switch_loss(forward: Forward) -> Losses:
    """The gradient of REINFORCE, which has no value of its own, and Switch's loss.

    The baseline of a token is the mean loss of the other tokens, in which its choice has no part.
    """
    token_loss, N = forward.token_loss, len(forward.token_loss)
    baseline = (token_loss.sum() - token_loss) / max(N - 1, 1)
    dlogits = gradient_estimators.reinforce(forward.routing, token_loss / N, baseline / N)
    return [(1.0, BalanceLoss(0.0, dlogits=dlogits)), (0.01, balance.switch(forward.routing))]


# --- the table ------------------------------------------------------------------------------------


def hash_table(rng: Rng, keys: ArrayND, n_experts: int) -> Params:
    """One expert for each key, at random."""
    return hashing.init(rng, keys.shape[1], n_experts, vocabulary=len(keys))


def centroids(rng: Rng, keys: ArrayND, n_experts: int) -> Params:
    """The centroids of k-means on the keys."""
    return kmeans.fit(rng, keys, n_experts, rounds=20)[0]


TOP_2: Options = {"k": 2, "renormalise": True}

TABLE = {
    "dense net, same active size": RouterSetup(dense),
    "dense net, same total size": RouterSetup(dense),
    "top-2, no loss": RouterSetup(top_k, TOP_2),
    "top-2, Switch loss": RouterSetup(top_k, TOP_2, losses=switch_loss(0.01)),
    # initialised as the others are; at zero, as in appendix A, it loses the first passes
    "noisy top-2": RouterSetup(
        noisy_top_k,
        {"k": 2, "noise_epsilon": 1e-2},
        {"scale": 1.0},
        losses=importance_and_load_losses,
    ),
    "Switch, α = .01": RouterSetup(switch, {"capacity_factor": 1.25}, losses=switch_loss(0.01)),
    "Switch, α = .1": RouterSetup(switch, {"capacity_factor": 1.25}, losses=switch_loss(0.1)),
    "GShard": RouterSetup(gshard, losses=gshard_loss),
    "ST-MoE": RouterSetup(st_moe, losses=st_moe_losses),
    "strictly balanced": RouterSetup(strictly_balanced, {"k": 2}, losses=threshold_loss),
    "expert choice": RouterSetup(expert_choice, {"capacity_factor": 2.0}),
    "hash": RouterSetup(hashing, init_from_keys=hash_table, token_ids=True),
    "k-means": RouterSetup(kmeans, {"k": 1, "weights": "one"}, init_from_keys=centroids),
    "BASE": RouterSetup(InGroups(base_assignment, GROUP)),
    "top-p": RouterSetup(top_p, {"p": 0.4}, losses=top_p_losses),
    "bias-balanced": RouterSetup(bias_balanced, TOP_2, after_step=bias_balanced.update_bias),
    "straight-through": RouterSetup(
        gradient_estimators, {"estimator": "straight_through"}, losses=switch_loss(0.01)
    ),
    "REINFORCE": RouterSetup(
        gradient_estimators, {"estimator": "reinforce"}, losses=reinforce_and_switch_loss
    ),
    "hierarchical": RouterSetup(
        hierarchical,
        {"k_primary": 1, "k_secondary": 2, "renormalise": False},
        {"groups": 8},
        losses=importance_loss,
    ),
    "soft mixture": RouterSetup(soft_moe, init_from_keys=soft_mixture.init_from_keys),
}
# experts and hidden units, where they are not those of the configuration
SIZES = {
    "dense net, same active size": {"n_experts": 1, "hidden": 32},
    "dense net, same total size": {"n_experts": 1, "hidden": 512},
}
WITH_CAPACITY = ("Switch, α = .01", "Switch, α = .1")
# measured in evaluation and, once more, as they were trained
TWO_MODES = ("strictly balanced", "BASE")


def with_all_routers(
    setups: Mapping[str, RouterSetup], routers: Mapping[str, Router]
) -> dict[str, RouterSetup]:
    """`setups`, and after them one for each router that none of them has."""
    named = [
        setup.router.router if isinstance(setup.router, InGroups) else setup.router
        for setup in setups.values()
    ]
    joined = dict(setups)
    for name, router in routers.items():
        if router not in named:
            options, init_options = router.EXAMPLE, getattr(router, "EXAMPLE_INIT", {})
            joined[name] = RouterSetup(router, options, init_options, losses=switch_loss_of_logits)
    return joined


SETUPS = with_all_routers(TABLE, routing.routers())
