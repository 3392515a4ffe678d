"""A training run in a folder over ranks: `moe-np train FOLDER --ranks R`.

    division = divide(run, pieces=8)                   written to run.json
    run = measured(run, division, world)               with --minutes: the number of updates
    for record in train(run, division, world): ...     on every rank, in lock step

The folder is that of `moe_np.language.run_folder`, and run.json also has

    pieces          into how many pieces every minibatch is divided, whatever the number of ranks;
                    an update has `micro_batches` minibatches (`parallel.training_over_ranks`)
    group           in which a router with a capacity routes: "piece", "batch"; null: it has none
    balance_group   over which load-balancing losses are taken: "piece", "batch"

So the number of ranks is no part of a run: it goes on with the same bits on any number of them, one
included. Rank 0 has the lock of the folder, measures the loss of the held-out text, and writes
everything; all ranks read. An error of one rank, also in writing, ends all.
"""

import contextlib
import functools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.data.text.windows import random_windows
from moe_np.language import (
    folder_lock,
    kinds,
    model_files,
    objectives,
    run_folder,
    run_progress,
    run_request,
    run_state,
)
from moe_np.language.evaluation import Evaluation
from moe_np.language.run_folder import Run
from moe_np.language.run_progress import Progress
from moe_np.models import decoder
from moe_np.parallel import groups, training_over_ranks
from moe_np.parallel.decoder_mixture import Piece
from moe_np.parallel.exchanges import Exchange, Gather
from moe_np.parallel.training_over_ranks import Plan, World
from moe_np.training import loop

PIECES = 8  # unless a minibatch has fewer windows
GROUPS = ("piece", "batch")  # those that do not depend on the number of ranks


class Division(NamedTuple):
    """How the work on a minibatch is divided: a part of what determines a run."""

    pieces: int
    group: str | None = None
    balance_group: str = "batch"


# --- how a run is divided -------------------------------------------------------------------------


def stored_division(run: Run) -> Division | None:
    """The division that run.json has; None for a run of `run_folder.train`."""
    stored = run_request.stored_request(run.folder) or {}
    if "pieces" not in stored:
        return None
    return Division(*(stored[name] for name in Division._fields))


def divide(
    run: Run,
    *,
    pieces: int | None = None,
    group: str | None = None,
    balance_group: str | None = None,
) -> Division:
    """The division of a run: the stored one, or a new one, which run.json then has.

    None is what is stored, or else PIECES (at most the windows of a minibatch), no group, "batch".

    Raises InputError for another division than the stored one, for a run that has a checkpoint
    without one, and for values that do not fit the model.
    """
    wanted = {"pieces": pieces, "group": group, "balance_group": balance_group}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    stored = stored_division(run)
    if stored is not None:
        run_request.refuse_another(run.folder, wanted, stored._asdict())
        return stored
    if run_state.updates(run.folder):
        raise InputError(
            f"{run.folder} holds another run: it was begun without --ranks, which adds up in "
            "another order. The same command goes on with it; for another run, name another folder"
        )
    default = Division(min(PIECES, run.settings.batch), balance_group=_balance_group(run))
    division = check(run, default._replace(**wanted))
    _store(run, **division._asdict())
    return division


def _store(run, **values):
    """Add values to run.json."""
    stored = run_request.stored_request(run.folder) or {}
    run_request.store_request(run.folder, {**stored, **values})


def _is_decoder(run):
    return kinds.KINDS[run.model].model is decoder


def _balance_group(run):
    """Over the batch, where the layer can: the models of `data_parallel` know their piece alone."""
    return "batch" if _is_decoder(run) else "piece"


def check(run: Run, division: Division) -> Division:
    """Raise InputError for a division that does not fit the run; return it."""
    checks.integer("--pieces", division.pieces, minimum=1, maximum=run.settings.batch)
    checks.choice("--balance-group", division.balance_group, GROUPS)
    if division.group is not None:
        checks.choice("--group", division.group, GROUPS)
    if not _is_decoder(run):
        for name, value in (("group", division.group), ("balance-group", division.balance_group)):
            if value == "batch":
                raise InputError(
                    f"--{name}: wanted piece for {run.model}, whose layers are whole on every "
                    "rank, got batch"
                )
    elif run.config.experts > 1:
        groups.check_group(run.config.router, run.config.options, division.group)
        if run.config.expert_dropout:
            raise InputError("--set expert_dropout: wanted 0 with --ranks")
    return division


def plan_of(run: Run, division: Division, ranks: int) -> Plan:
    """What determines the training on so many ranks.

    Raises InputError for more ranks than pieces, and than experts where these are divided.
    """
    checks.integer("--ranks", ranks, minimum=1)
    if ranks > division.pieces:
        wanted = f"at most one per piece, {division.pieces}"
        raise InputError(f"--ranks: wanted {wanted}, got {ranks}; a new run can have more --pieces")
    kind = kinds.KINDS[run.model]
    values: dict[str, Any] = {}
    if run.settings.balance is not None:
        coefficient = run.settings.balance
        values["losses"] = tuple((coefficient, loss) for loss in kind.losses if coefficient)

    def minibatch_of(rng):
        return random_windows(run.train, rng, batch=run.settings.batch, length=run.settings.length)

    def gradients_of(params: Any, piece: Piece) -> tuple[Any, Any]:
        ids, targets = piece.ids, piece.targets
        rng: Any = piece.rng
        return objectives.loss_and_grads(
            kind.model, params, ids, targets, run.config, rng, **values
        )

    if not _is_decoder(run):
        return Plan(run.config, division.pieces, minibatch_of, {}, None, gradients_of)
    values |= {"group": division.group, "balance_group": division.balance_group}
    placed = training_over_ranks.placed_on(run.config, ranks)
    return Plan(run.config, division.pieces, minibatch_of, values, placed)


# --- how many updates fit in --minutes ------------------------------------------------------------


def measured(run: Run, division: Division, world: World) -> Run:
    """The run with its number of updates, on every process of the world: the stored number, or for
    a new run with --minutes as many as these ranks make in that time.

    The ranks make a few updates after a warm-up, whose results are thrown away, and rank 0 times
    them. It stores the number before the first update of the run, and tells it to the other ranks.
    So the run keeps its number on any ranks; after a kill before that, the same command measures.

    Raises RankError as `train` does.
    """
    if run.options.updates:
        return run
    plan = plan_of(run, division, world.ranks)
    # an update more than is timed: after the last one the ranks gather the state
    options = run.options._replace(updates=run_folder.WARM_UP + run_folder.TIMED + 1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_blas_thread())
        held = folder_lock.held(run.folder)
        _on_all(world, "lock of the folder", lambda: stack.enter_context(held))
        minutes = (run_request.stored_request(run.folder) or {})["minutes"]
        state = loop.initial_state(_new_params(run))
        steps = training_over_ranks.train(state, plan, options, world)
        number = run_folder.updates_in(minutes, steps)
        updates = world.run([_agreed(run, number, rank) for rank in world.here])[0]
    return run._replace(options=loop.check(run.options._replace(updates=updates)))


def _agreed(run, number, rank) -> Generator[Exchange, Any, int]:
    """The number of rank 0, which it stores, on every rank."""
    if rank == 0:
        _store(run, updates=number)
    numbers = yield Gather(np.array([number]), "number of updates")
    return int(numbers[0][0])


# --- training -------------------------------------------------------------------------------------


def train(
    run: Run,
    division: Division,
    world: World,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Progress | Evaluation, None, None]:
    """Go on with a run until its last update, as `run_folder.train`: on every process of the world,
    in lock step. The process that has rank 0 writes. run: from `measured`.

    stop   called after every update: whether this process is to end. Then all end after the same
           update, with a checkpoint

    The seconds of a Progress are those of this process. Raises RankError, on all ranks the same,
    where the folder is locked, where the ranks did not read the same, where an update has numbers
    that are too large or NaN, and where rank 0 cannot write.
    """
    plan = plan_of(run, division, world.ranks)
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_blas_thread())  # as under MPI, for the same bits
        held = folder_lock.held(run.folder)
        _on_all(world, "lock of the folder", lambda: stack.enter_context(held))
        begun = loop.initial_state(_new_params(run))
        state, best = run_state.read(run.folder, begun)
        _on_all(world, "metrics", lambda: run_state.cut_metrics(run.folder, state.number))
        yield from _train(run, plan, world, state, best, stop)


def _on_all(world, name, of_rank_0):
    """Let rank 0 do something, while the others wait; an error of it ends all. -> its result."""

    def on_a_rank(rank) -> Generator[Exchange, Any, Any]:
        result = of_rank_0() if rank == 0 else None
        yield Gather(np.zeros(0), name)
        return result

    return world.run([on_a_rank(rank) for rank in world.here])[0]


def _new_params(run):
    rng = np.random.default_rng([run.options.seed, 0])
    return kinds.KINDS[run.model].model.init(rng, run.config)


def _train(run, plan, world, state, best, stop):
    start = run_progress.clocks()
    last = run.options.updates

    def is_wanted(number):
        return number % run.checkpoint_every == 0 or number == last

    steps = training_over_ranks.train(
        state, plan, run.options, world, is_wanted=is_wanted, stop=stop
    )
    for step in steps:
        now = run_progress.clocks()
        record = _progress_of(step, now - start)
        start = now
        if 0 in world.here:
            run_state.append(run.folder, record._asdict())
        yield record
        if is_wanted(step.number):
            write = functools.partial(_checkpoint, run, step.state, best)
            held_out, best = _on_all(world, "checkpoint", write) or (None, best)
            if held_out is not None:
                yield held_out
            start = run_progress.clocks()
        elif step.state.params is not None:  # a stop
            write = functools.partial(run_state.write, run.folder, step.state, best)
            _on_all(world, "state", write)


def _progress_of(step, seconds):
    losses = step.losses
    return Progress(
        step.number,
        float(losses.task),
        tuple(float(value) for value in losses.balance),
        float(step.gradient_norm),
        float(step.learning_rate),
        step.tokens,
        round(float(seconds[0]), 4),
        round(float(seconds[1]), 4),
        [load.tolist() for load in losses.load],
        [float(share) for share in losses.dropped],
    )


def _checkpoint(run, state, best):
    """Measure and write, in the order of `run_folder`: -> the Evaluation, the least loss so far."""
    try:
        held_out = run_folder.validate(run, state.params)
    except InputError as error:
        raise loop.UpdateError(state.number, f"the held-out text after it: {error}") from error
    if not np.isfinite(held_out.loss):
        raise loop.NotFiniteError(state.number, "the loss of the held-out text after it")
    numbers = {"validation_loss": held_out.loss, "perplexity": held_out.perplexity}
    numbers["bits_per_byte"] = held_out.bits_per_byte
    run_state.append(run.folder, {"step": state.number, **numbers})
    model = kinds.KINDS[run.model].model
    if best is None or held_out.loss < best:
        best = held_out.loss
        model_files.save(run.folder / "best", model, run.config, state.params)
        model_files.copy_tokeniser(run.folder, run.folder / "best")
    run_state.write(run.folder, state, best)
    model_files.save(run.folder, model, run.config, state.params)
    return held_out, best
