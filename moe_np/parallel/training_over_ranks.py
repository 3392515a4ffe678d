"""Training over ranks: the updates of `moe_np.training.loop`, one process per rank.

    world = in_this_process(4)                     or mpi_world(4), one rank of four
    states = begin(state, config, world)
    for step in train(states, batch_of, ...):      all ranks in lock step

Every rank draws the whole minibatch and takes its pieces, so that data and random numbers depend on
the seed and the number of the update alone. The global norm of the gradients is a sum over leaves,
and over experts in their order. So 20 updates, or any number, give the same parameters on any
number of ranks, to the bit, with a fixed number of pieces.

**Gradient accumulation.** An update has `micro_batches` minibatches, and each of these has `pieces`
pieces. All ranks work on the same minibatch at a time, each on its own pieces of it, and have its
gradients before the next one begins. Then each rank adds up what it has, weighted by the valid
targets of all ranks. A load-balancing loss or a capacity of the group "batch" is that of one
minibatch, as in `moe_np.training.loop`.

The experts of a decoder are divided among the ranks. Of another model, and of a dense one, every
rank has the whole (`moe_np.parallel.data_parallel`).
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import optim
from moe_np.base.checks import InputError
from moe_np.base.optim import AdamState
from moe_np.base.params import leaves, map_leaves
from moe_np.base.types import Rng
from moe_np.models.decoder_config import Config, Tree
from moe_np.parallel import (
    agreement,
    data_parallel,
    decoder_parallel,
    in_process,
    mpi,
    placement,
)
from moe_np.parallel.data_parallel import PieceGradients
from moe_np.parallel.decoder_mixture import Setting
from moe_np.parallel.exchanges import Exchange, Gather
from moe_np.parallel.placement import Placement
from moe_np.training import loop
from moe_np.training.loop import NotFiniteError, Options, State, Step, UpdateError


class World(NamedTuple):
    """The ranks of a program, and those of them that are in this process."""

    ranks: int
    here: tuple[int, ...]
    run: Callable[
        [Sequence[Generator[Exchange, Any, Any]]], list[Any]
    ]  # of the ranks that are here


def in_this_process(ranks: int) -> World:
    """All ranks in this process."""
    return World(ranks, tuple(range(ranks)), in_process.run)


def mpi_world(ranks: int) -> World:
    """One rank per process. Raises InputError where there are not as many."""
    rank = mpi.world(ranks).rank
    return World(ranks, (rank,), lambda generators: [mpi.run(generators[0])])


class Plan(NamedTuple):
    """What determines the training, beside the state and the options."""

    config: Any  # of a decoder, whose experts are divided among the ranks as `placed` says
    pieces: int  # of each minibatch
    minibatch_of: Callable[[Rng], tuple[Any, Any]]  # -> ids and targets (B, T)
    values: dict[str, Any]  # of `Setting`: losses, group, balance_group
    placed: Placement | None  # None: every rank has the whole model
    replicated: PieceGradients | None = None  # of a model that is no decoder; then placed is None


def placed_on(config: Config, ranks: int) -> Placement:
    """Contiguous shares of a decoder's experts; of a dense one nothing is divided."""
    if config.experts == 1:
        return placement.contiguous(1, 1)
    return placement.contiguous(config.experts, ranks)


# --- states ---------------------------------------------------------------------------------------


def _is_divided(path, config, placed):
    return placed is not None and decoder_parallel.is_divided(path, config)


def divided(state: State, config: Any, rank: int, placed: Placement | None) -> State:
    """What one rank has of a whole state: copies."""
    optimiser = state.optimiser
    params, m, v = (
        map_leaves(lambda leaf: np.array(leaf, order="C"), tree)
        if placed is None
        else decoder_parallel.of_rank(tree, config, rank, placed)
        for tree in (state.params, optimiser.m, optimiser.v)
    )
    return State(state.number, params, AdamState(optimiser.t, m, v))


def whole(
    state: State, config: Any, rank: int, placed: Placement | None
) -> Generator[Exchange, Any, State]:
    """The whole state, on every rank. What ranks have in common must be the same, to the bit."""
    common = {
        path: leaf
        for path, leaf in leaves(state.params).items()
        if not _is_divided(path, config, placed)
    }
    yield from agreement.same({path.replace(".", "/"): leaf for path, leaf in common.items()})
    if placed is None:
        return state
    trees = []
    for name, tree in zip("pmv", (state.params, state.optimiser.m, state.optimiser.v), strict=True):
        trees.append((yield from decoder_parallel.whole(tree, config, rank, placed, name)))
    params, m, v = trees
    return State(state.number, params, AdamState(state.optimiser.t, m, v))


# --- updates --------------------------------------------------------------------------------------


def global_norm(
    grads: Tree, config: Any, rank: int, placed: Placement | None
) -> Generator[Exchange, Any, float]:
    """√Σ g² over all leaves and all experts, summed in float64 in the order of leaves and experts.

    An expert with replicas counts once.
    """
    common = 0.0
    columns = []
    for path, g in leaves(grads).items():
        if _is_divided(path, config, placed):
            columns.append([_squares(of_slot) for of_slot in g])
        else:
            common += _squares(g)
    if columns and placed is not None:
        table = {"squares": np.array(columns).T.reshape(-1, len(columns))}
        of_experts = yield from placement.of_experts(table, rank, placed, "norm of")
        common += sum(of_experts["squares"].ravel().tolist())
    return math.sqrt(common)


def _squares(g):
    flat = g.ravel().astype(np.float64)
    return float((flat * flat).sum())


def update(
    state: State, plan: Plan, rank: int, ranks: int, options: Options
) -> Generator[Exchange, Any, Step]:
    """One update on one rank, as `loop.train` makes it. The arrays of `state` are overwritten.

    Raises NotFiniteError, on every rank, where loss or gradients are not finite, and UpdateError
    where the model refuses its numbers.
    """
    number = state.number + 1
    losses, grads = yield from _accumulated(state.params, plan, rank, ranks, options, number)
    norm = yield from global_norm(grads, plan.config, rank, plan.placed)
    if not math.isfinite(norm):
        raise NotFiniteError(number, "the norm of the gradients")
    new, learning_rate = loop.updated(state, grads, norm, options)
    return Step(number, losses, losses.tokens, norm, learning_rate, new)


def _accumulated(params, plan, rank, ranks, options, number):
    """Losses and gradients of update `number`: the mean over the valid targets of its minibatches.
    All else of the losses is from the last minibatch.
    """
    seed = [options.seed, number]
    rng = np.random.default_rng(seed)
    # all are drawn before a router draws: the data depend on the seed and the number alone
    minibatches = [plan.minibatch_of(rng) for _ in range(options.micro_batches)]
    losses: Any = None
    grads: Any = None
    for n, (ids, targets) in enumerate(minibatches):
        pieces = decoder_parallel.pieces_of(
            ids, targets, plan.pieces, rank, ranks, seed=seed, before=n * plan.pieces
        )
        try:
            last, last_grads = yield from _loss_and_grads(params, pieces, plan, rank, rng)
        except InputError as error:
            raise UpdateError(number, str(error)) from error
        if not math.isfinite(last.task):
            raise NotFiniteError(number, "the loss")
        losses, grads = (last, last_grads) if n == 0 else _mean(losses, grads, last, last_grads)
    return losses, grads


def _mean(losses, grads, last, last_grads):
    """The mean over the minibatches so far, joined with the last one: the memory of one is enough.
    It is taken element by element, so an expert has the same bits on any rank.
    """
    grads, tokens = optim.accumulate([(grads, losses.tokens), (last_grads, last.tokens)])
    task = losses.task * losses.tokens + last.task * last.tokens
    return last._replace(task=task / max(tokens, 1), tokens=tokens), grads


def _loss_and_grads(params, pieces, plan, rank, rng):
    if plan.replicated is not None:
        return data_parallel.loss_and_grads(params, pieces, plan.replicated)
    setting = Setting(plan.config, rank, plan.placed, **plan.values)
    return decoder_parallel.loss_and_grads(params, pieces, setting, rng=rng)


def _update_and_ask(state, plan, rank, ranks, options, stop):
    """An update, and whether any rank is to stop."""
    step = yield from update(state, plan, rank, ranks, options)
    gathered = yield Gather(np.array([stop()]), "stop")
    return step, bool(np.concatenate(gathered).any())


def train(
    state: State,
    plan: Plan,
    options: Options,
    world: World,
    *,
    is_wanted: Callable[[int], bool] = lambda number: False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """An iterator of steps until `options.updates`, on every process of the world in lock step.

    state       whole, the same on all ranks, which is checked; it is not changed
    is_wanted   whether the caller wants the state after the update of this number
    stop        whether this process is to end: then all end after the same update

    `step.state` is whole after the last update, after a stop, and where it is wanted; else it has
    the number alone, and params None. Raises RankError for ranks whose states differ.
    """
    loop.check(options)
    world.run([agreement.same(state.params) for _ in world.here])
    states = [divided(state, plan.config, rank, plan.placed) for rank in world.here]
    ended = False
    while states[0].number < options.updates and not ended:
        results = world.run(
            [
                _update_and_ask(old, plan, rank, world.ranks, options, stop)
                for old, rank in zip(states, world.here, strict=True)
            ]
        )
        states = [step.state for step, _ in results]
        step, ended = results[0]
        last = ended or step.number == options.updates
        known = State(step.number, None, AdamState(step.number, None, None))
        if last or is_wanted(step.number):
            generators = [
                whole(new, plan.config, rank, plan.placed)
                for new, rank in zip(states, world.here, strict=True)
            ]
            known = world.run(generators)[0]
        yield step._replace(state=known)
