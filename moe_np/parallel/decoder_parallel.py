"""The decoder of `moe_np.models.decoder` over ranks: its experts are divided among the ranks, and
everything else is data-parallel.

The sequences of a batch are divided in pieces, of which each rank has some. What is no expert works
on one piece at a time: embedding, norms, attention, router, head. Its gradients are summed over the
pieces of all ranks in their order. The experts get the rows of all pieces
(`moe_np.parallel.expert_parallel`), and their gradients are complete where they are. So loss and
gradients have the same bits on any number of ranks, with a fixed number of pieces.

    loss = (1/n) Σ_{n valid targets of all ranks} −log softmax(logits)_target + Σ_layers balance

A dense layer, and shared experts, are on every rank. Dropout and routers that draw take one
generator per piece.
"""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.params import leaves, map_leaves
from moe_np.base.types import Array, ArrayE, Rng
from moe_np.layers import (
    cross_entropy,
    dropout,
    embedding,
    mixture_layer,
    norms,
    rotary,
)
from moe_np.models import decoder
from moe_np.models.decoder_config import Config, Tree, check
from moe_np.parallel import expert_parallel, groups, placement
from moe_np.parallel.decoder_mixture import (
    Mixture,
    Piece,
    Setting,
    Step,
    loads,
    mixture_backward,
    mixture_forward,
    unzip,
)
from moe_np.parallel.exchanges import Exchange, Gather, shares
from moe_np.parallel.placement import Placement


class Loss(NamedTuple):
    """What a step measures, of all ranks: the fields of `decoder.Loss`, and the experts' loads."""

    task: float
    balance: tuple[float, ...]
    tokens: int
    load: tuple[ArrayE, ...]  # assignments of each expert, per layer with a router
    dropped: tuple[float, ...]  # share of the assignments that a capacity dropped


def pieces_of(
    ids: decoder.ArrayBT,
    targets: decoder.ArrayBT,
    pieces: int,
    rank: int,
    ranks: int,
    *,
    seed: Sequence[int] | None = None,
    before: int = 0,
) -> list[Piece]:
    """The pieces of one rank, out of the whole batch.

    seed     the generator of piece p is that of [*seed, before + p]; None: no generator
    before   pieces of other batches that have this seed too

    Raises InputError for fewer sequences than pieces, and fewer pieces than ranks.
    """
    checks.integer("pieces", pieces, minimum=1)
    if not ranks <= pieces <= len(ids):
        wanted = f"at least {ranks}, the ranks, and at most {len(ids)}, the sequences of a batch"
        raise InputError(f"pieces: wanted {wanted}, got {pieces}")
    bounds = shares(len(ids), pieces)
    first, last = shares(pieces, ranks)[rank : rank + 2]
    return [
        Piece(
            ids[bounds[p] : bounds[p + 1]],
            targets[bounds[p] : bounds[p + 1]],
            rng=None if seed is None else np.random.default_rng([*seed, before + p]),
        )
        for p in range(first, last)
    ]


# --- parameters -----------------------------------------------------------------------------------


def is_divided(path: str, config: Config) -> bool:
    """Whether a leaf is of routed experts, which are divided among the ranks."""
    names = path.split(".")
    return (
        names[0] == "layers"
        and names[2] == "experts"
        and not decoder.is_dense(config, int(names[1]))
    )


def of_rank(tree: Tree, config: Config, rank: int, placed: Placement) -> Tree:
    """Copies of what one rank has of parameters, or of the running means of an optimiser."""
    experts = placed.expert[placed.of_rank(rank)]
    return _map_with_path(
        lambda path, leaf: np.array(leaf[experts] if is_divided(path, config) else leaf, order="C"),
        tree,
    )


def whole(
    tree: Tree, config: Config, rank: int, placed: Placement, name: str = "params"
) -> Generator[Exchange, Any, Tree]:
    """The tree of all experts, on every rank: the inverse of `of_rank`."""
    divided = {path: leaf for path, leaf in leaves(tree).items() if is_divided(path, config)}
    joined = yield from placement.of_experts(divided, rank, placed, name)
    return _map_with_path(lambda path, leaf: joined.get(path, leaf), tree)


def _map_with_path(function, tree):
    paths = iter(leaves(tree))
    return map_leaves(lambda leaf: function(next(paths), leaf), tree)


# --- a step ---------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """A block, with one cache per piece."""

    norm1: list[Any]
    attention: list[Any]
    attention_masks: list[Any]
    norm2: list[Any]
    mixture: "Mixture | list[Any]"  # a list, one cache per piece: a dense layer
    masks: list[Any]


def loss_and_grads(
    params: Tree, pieces: Sequence[Piece], setting: Setting, *, rng: Rng | None = None
) -> Generator[Exchange, Any, tuple[Loss, Tree]]:
    """A step of training on one rank: -> (Loss of all ranks, gradients of this rank's parameters).

    params   from `of_rank`
    pieces   of this rank, each with at least one sequence
    rng      of a router that draws and does not route by pieces: with the group "batch" in the
             same state on all ranks

    Raises InputError for a router that needs the whole batch without a group, and for dropout in
    experts, whose masks are drawn where the experts are.
    """
    config = setting.config
    check(config)
    if config.expert_dropout:
        raise InputError("config.expert_dropout: wanted 0 over ranks, where a mask depends on them")
    group = "piece"
    if config.experts > 1:
        group = groups.check_group(config.router, config.options, setting.group)
        needed = groups.need(config.router, config.options).of
        group = group if needed == groups.WHOLE else "piece"
    dtype = params["embed"]["w"].dtype
    step = Step(
        *(setting, pieces, [_batch(piece, config, dtype) for piece in pieces]),
        *(mixture_layer.KINDS[config.expert], group, rng),
    )
    x, embedded = unzip([embedding.forward(params["embed"], piece.ids) for piece in pieces])
    blocks = []
    for i, layer in enumerate(params["layers"]):
        x, block = yield from _block_forward(layer, x, i, step)
        blocks.append(block)
    x, last = unzip([norms.rms_forward(params["norm"], part, eps=config.eps) for part in x])
    task, tokens, dx, parts = yield from _head(params, x, step)
    grads: dict[str, Array] = {}
    for p, part in enumerate(dx):
        dx[p], dnorm = norms.rms_backward(part, last[p])
        parts[p]["norm.g"] = dnorm["g"]
    for i in reversed(range(len(blocks))):
        dx = yield from _block_backward(dx, blocks[i], i, step, parts, grads)
    for p, part in enumerate(dx):
        dembed = embedding.backward(part, embedded[p])["w"]
        parts[p]["embed.w"] = parts[p].get("embed.w", 0) + dembed
    summed = yield from expert_parallel.summed_by_pieces(parts, "gradient of")
    load, dropped = yield from loads([block.mixture for block in blocks])
    balance = tuple(
        b.mixture.added.value if isinstance(b.mixture, Mixture) else 0.0 for b in blocks
    )
    grads |= summed
    for path, leaf in leaves(params).items():
        if ".router." in path:  # what a router does not learn, such as a table
            grads.setdefault(path, np.zeros_like(leaf))
    tree = _map_with_path(lambda path, leaf: grads[path], params)
    return Loss(task, balance, tokens, load, dropped), tree


def _batch(piece, config, dtype):
    """The batch of a piece, as `decoder.hidden` makes it."""
    turned = rotary.angles(
        np.arange(piece.ids.shape[1]), config.d_head, theta=config.theta, dtype=dtype
    )
    return decoder.Batch(piece.ids, turned, piece.valid, piece.valid, piece.rng, True)


def _head(params, x, step):
    """Head and cross-entropy: -> loss, valid targets of all ranks, dx and gradients per piece."""
    config = step.setting.config
    name = "embed" if config.tied else "head"
    entropies = [
        cross_entropy.head_forward(
            {"w": params[name]["w"]},
            part.reshape(-1, config.d_model),
            piece.targets.ravel(),
            tied=config.tied,
        )[1]
        for part, piece in zip(x, step.pieces, strict=True)
    ]
    counts = np.array([[entropy.total, entropy.n_valid] for entropy in entropies])
    gathered = yield Gather(counts, "loss")
    of_pieces = np.concatenate(gathered).tolist()
    tokens = int(sum(n for _, n in of_pieces))
    task = sum(total for total, _ in of_pieces) / max(tokens, 1)
    dx = []
    parts: list[dict[str, Array]] = []
    for part, entropy in zip(x, entropies, strict=True):
        drows, dhead = cross_entropy.head_backward(entropy.n_valid / max(tokens, 1), entropy)
        dx.append(drows.reshape(part.shape))
        parts.append({f"{name}.w": dhead["w"]})
    return task, tokens, dx, parts


def _block_forward(params, x, i, step):
    config = step.setting.config
    h, norm1 = unzip([norms.rms_forward(params["norm1"], part, eps=config.eps) for part in x])
    a, attended = unzip(
        [
            decoder.attend(params["attention"], part, config, i, batch)
            for part, batch in zip(h, step.batches, strict=True)
        ]
    )
    a, attention_masks = _drop(a, step)
    triples = [
        norms.add_rms_forward(params["norm2"], part, added, eps=config.eps)
        for part, added in zip(x, a, strict=True)
    ]
    x, h, norm2 = (list(column) for column in zip(*triples, strict=True))
    rows = [part.reshape(-1, config.d_model) for part in h]
    m, mixture = yield from mixture_forward(params, rows, step)
    m, masks = _drop([part.reshape(old.shape) for part, old in zip(m, h, strict=True)], step)
    x = [part + added for part, added in zip(x, m, strict=True)]
    return x, _Block(norm1, attended, attention_masks, norm2, mixture, masks)


def _drop(x, step):
    p = step.setting.config.dropout
    pairs = [
        dropout.forward(part, p, piece.rng) for part, piece in zip(x, step.pieces, strict=True)
    ]
    return unzip(pairs)


def _block_backward(dx, block, i, step, parts, grads):
    """`_block_forward`, turned round. `parts` gets the gradients of each piece, `grads` those of
    experts and router.
    """
    p = step.setting.config.dropout
    dm = [dropout.backward(d, mask, p) for d, mask in zip(dx, block.masks, strict=True)]
    rows = [d.reshape(-1, d.shape[-1]) for d in dm]
    dh = yield from mixture_backward(rows, block.mixture, i, step, parts, grads)
    for n, d in enumerate(dx):
        d, dnorm2 = norms.add_rms_backward(d, dh[n].reshape(d.shape), block.norm2[n])
        da = dropout.backward(d, block.attention_masks[n], p)
        back, dattention = decoder.attention.backward(da, block.attention[n])
        dx[n], dnorm1 = norms.add_rms_backward(d, back, block.norm1[n])
        layer = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2}
        parts[n] |= {f"layers.{i}.{path}": g for path, g in leaves(layer).items()}
    return dx
