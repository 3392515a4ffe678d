"""Fine-tuning: which parameters are trained and which are frozen, masked tokens, paraphrases,
early stopping, and minibatches of a small set of examples.

    group          leaves, by name
    embeddings     embed, head
    norms          norm1, norm2, norm
    attention      attention
    feed_forward   experts of layers without a router, and shared experts
    experts        experts of layers with a router
    router         router, shared_gate

SUBSETS are the five of ST-MoE (Zoph et al. 2022, arXiv 2202.08906, figure 5): all parameters, all
but the experts, the experts alone, attention, feed-forward networks. There the experts alone are
drastically worse than the other four.

A frozen leaf keeps its bits: its gradient is 0, its running means stay 0 from a new optimiser, and
it has no weight decay. The global norm by which gradients are clipped is that of the trained
leaves.

Dropout and expert dropout are values of `decoder.Config`; Fedus et al. 2021 (section 4.1, table 4)
fine-tune with .1 and .4.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any

import numpy as np

from moe_np.base import checks, optim
from moe_np.base.checks import InputError
from moe_np.base.params import leaves, map_leaves
from moe_np.base.types import Array, ArrayBT, Rng
from moe_np.layers import cross_entropy
from moe_np.models import decoder
from moe_np.models.decoder_config import Config, Tree, is_dense

GROUPS = ("embeddings", "norms", "attention", "feed_forward", "experts", "router")
SUBSETS = {
    "all": GROUPS,
    "all but experts": ("embeddings", "norms", "attention", "feed_forward"),
    "experts": ("experts", "router"),
    "attention": ("attention",),
    "feed-forward": ("feed_forward",),
}
BY_NAME = {
    "embed": "embeddings",
    "head": "embeddings",
    "norm": "norms",
    "norm1": "norms",
    "norm2": "norms",
    "attention": "attention",
    "router": "router",
    "shared_gate": "router",
    "shared": "feed_forward",
}

# --- what is trained ------------------------------------------------------------------------------


def group_of(path: str, config: Config) -> str:
    """The group of the leaf with this path, such as "layers.0.attention.wq"."""
    names = path.split(".")
    if names[0] != "layers":
        return BY_NAME[names[0]]
    if names[2] == "experts":
        return "feed_forward" if is_dense(config, int(names[1])) else "experts"
    return BY_NAME[names[2]]


def trained_leaves(config: Config, params: Tree, groups: Collection[str]) -> frozenset[str]:
    """The paths of the leaves of these groups.

    Raises InputError for an unknown group, and where the model has no leaf of any of them.
    """
    for group in groups:
        checks.choice("groups", group, GROUPS)
    chosen = frozenset(path for path in leaves(params) if group_of(path, config) in groups)
    if not chosen:
        raise InputError(f"groups: wanted a group that this model has, got {list(groups)}")
    return chosen


def all_but(*groups: str) -> tuple[str, ...]:
    """All groups without these."""
    for group in groups:
        checks.choice("groups", group, GROUPS)
    return tuple(group for group in GROUPS if group not in groups)


def frozen(grads: Any, trained: Collection[str]) -> Any:
    """The gradients with 0 at every leaf that is not trained."""
    paths = iter(leaves(grads))
    return map_leaves(lambda g: g if next(paths) in trained else np.zeros_like(g), grads)


def decays(trained: Collection[str]) -> Callable[[str], bool]:
    """Which leaves have weight decay: of those that are trained, as `optim.decays_by_name` says."""
    return lambda path: path in trained and optim.decays_by_name(path)


# --- data -----------------------------------------------------------------------------------------


def minibatches(
    ids: ArrayBT, targets: ArrayBT, *, batch: int
) -> Callable[[Rng], tuple[ArrayBT, ArrayBT]]:
    """`minibatch_of` for the training loop: `batch` different examples at random, or all that there
    are. Raises InputError for an empty set.
    """
    ids = checks.array("ids", ids, ("n", "T"), kind="i")
    if not ids.size:
        raise InputError("ids: wanted at least one example to train on, got an empty set")
    targets = checks.array("targets", targets, ids.shape, kind="i")
    batch = min(checks.size("batch", batch), len(ids))

    def minibatch_of(rng):
        chosen = rng.choice(len(ids), size=batch, replace=False)
        return ids[chosen], targets[chosen]

    return minibatch_of


def paraphrased(
    examples: tuple[ArrayBT, ArrayBT],
    paraphrases: tuple[ArrayBT, ArrayBT],
    p: float,
    *,
    batch: int,
) -> Callable[[Rng], tuple[ArrayBT, ArrayBT]]:
    """Augmentation: `minibatches` of (ids, targets), where each example is replaced with
    probability p by that of the same row of `paraphrases`, which says the same in other words.

    Raises InputError for an empty set, and for parts of different shapes.
    """
    p = checks.number("p", p, minimum=0, maximum=1)
    wanted = np.shape(examples[0])
    sides = [
        [checks.array(name, part, wanted, kind="i") for part in side]
        for name, side in (("examples", examples), ("paraphrases", paraphrases))
    ]
    # each row is an example and, behind it, its paraphrase
    both = (np.hstack(pair) for pair in zip(*sides, strict=True))
    pairs_of = minibatches(*both, batch=batch)

    def minibatch_of(rng):
        pairs = pairs_of(rng)
        replaced = rng.random(len(pairs[0]))[:, None] < p
        halves = (np.hsplit(part, 2) for part in pairs)
        ids, targets = (np.where(replaced, other, example) for example, other in halves)
        return ids, targets

    return minibatch_of


def masked(
    ids: ArrayBT, p: float, rng: Rng, *, vocabulary: int, token: int | None = None
) -> ArrayBT:
    """Augmentation: each token is replaced with probability p, the targets stay.

    token   what replaces it; None: a random one of the vocabulary
    """
    p = checks.number("p", p, minimum=0, maximum=1)
    ids = checks.array("ids", ids, ("B", "T"), kind="i")
    drawn = rng.integers(0, vocabulary, ids.shape)
    put = drawn if token is None else np.full_like(ids, token)
    return np.where(rng.random(ids.shape) < p, put, ids)


def held_out_loss(
    config: Config, params: Tree, ids: ArrayBT, targets: ArrayBT, *, batch: int = 32
) -> float:
    """Nats per valid target of a set of examples, in evaluation."""
    total = 0.0
    count = 0
    for low in range(0, len(ids), batch):
        logits, _ = decoder.forward(params, ids[low : low + batch], config)
        rows = logits.reshape(-1, config.vocabulary)
        _, cache = cross_entropy.forward(rows, targets[low : low + batch].ravel())
        total += cache.total
        count += cache.n_valid
    return total / max(count, 1)


# --- when it ends ---------------------------------------------------------------------------------


def stops(losses: Sequence[float] | Annotated[Array, "n"], patience: int | None) -> bool:
    """Early stopping: whether the last `patience` validation losses are all at least the least one
    before them (Prechelt 1998). None: never.
    """
    if patience is None:
        return False
    patience = checks.integer("patience", patience, minimum=1)
    losses = list(losses)
    if len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience])
