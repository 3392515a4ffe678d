"""Data parallelism alone: every rank has the whole model, experts included, and some of the pieces
of a batch. For models whose layers are not written over ranks (encoder-decoder, LSTM).

    loss = Σ_p (n_p/n) loss_p        n_p valid targets of piece p, n of all pieces

A loss is the model's own, of one piece, and so are its load-balancing losses and its capacity: the
group is the piece (`moe_np.parallel.groups`). The gradients are summed over the pieces of all ranks
in their order, so they have the same bits on any number of ranks.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias

import numpy as np

from moe_np.base.params import leaves, map_leaves
from moe_np.models.decoder_config import Tree
from moe_np.parallel import expert_parallel
from moe_np.parallel.decoder_mixture import Piece
from moe_np.parallel.decoder_parallel import Loss
from moe_np.parallel.exchanges import Exchange, Gather

# (params, piece) -> (losses, grads): a model's `loss_and_grads` of one piece
PieceGradients: TypeAlias = Callable[[Tree, Piece], tuple[Any, Tree]]


def loss_and_grads(
    params: Tree, pieces: Sequence[Piece], gradients_of: PieceGradients
) -> Generator[Exchange, Any, tuple[Loss, Tree]]:
    """A step of training on one rank: -> (Loss of all ranks, gradients, the same on all ranks).

    params   the whole model
    pieces   of this rank, each with at least one sequence
    """
    pairs = [gradients_of(params, piece) for piece in pieces]
    numbers = np.array([[losses.tokens, losses.task, *losses.balance] for losses, _ in pairs])
    gathered = yield Gather(numbers, "losses")
    of_pieces = np.concatenate(gathered)
    tokens = of_pieces[:, 0].sum()
    share = of_pieces[:, 0] / max(tokens, 1)
    means = [sum(column.tolist()) for column in (share[:, None] * of_pieces[:, 1:]).T]
    parts = [
        {
            path: g * g.dtype.type(losses.tokens / max(tokens, 1))
            for path, g in leaves(grads).items()
        }
        for losses, grads in pairs
    ]
    total = yield from expert_parallel.summed_by_pieces(parts, "gradient of")
    paths = iter(leaves(params))
    tree = map_leaves(lambda leaf: total[next(paths)], params)
    load, dropped = yield from _loads([losses.routings for losses, _ in pairs])
    return Loss(means[0], tuple(means[1:]), int(tokens), load, dropped), tree


def _loads(of_pieces):
    """As `decoder_mixture.loads`, of the routings of each piece."""
    load, dropped = [], []
    for same in zip(*of_pieces, strict=True):
        n_experts = same[0].demand.shape[1]
        if n_experts == 1:
            continue
        kept = sum(np.bincount(routing.expert, minlength=n_experts) for routing in same)
        wanted = sum(routing.demand.sum() for routing in same)
        gathered = yield Gather(np.append(kept, wanted)[None], "loads")
        total = np.concatenate(gathered).sum(axis=0)
        load.append(total[:-1])
        dropped.append(float(1 - total[:-1].sum() / max(total[-1], 1)))
    return tuple(load), tuple(dropped)
