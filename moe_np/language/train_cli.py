"""`moe-np train`: in one process (`moe_np.language.cli`), or with --ranks over several by MPI.

With --ranks the command opens the run, then starts itself under mpiexec, one process per rank;
where there is no MPI, all ranks run in this process. It says which. A signal goes to all ranks,
which end after the same update with a checkpoint. A run that was begun with --ranks goes on in its
pieces without it too, in one process and with the same bits.
"""

import argparse
import contextlib
import pathlib
import sys

from moe_np.base.checks import InputError
from moe_np.language import (
    cli,
    corpus,
    run_folder,
    run_pictures,
    run_request,
    run_state,
    train_over_ranks,
)
from moe_np.language.run_folder import Run
from moe_np.language.train_over_ranks import Division
from moe_np.parallel import cli as parallel_cli
from moe_np.parallel import launch, progress
from moe_np.parallel.exchanges import RankError
from moe_np.parallel.training_over_ranks import World, in_this_process, mpi_world


def add_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np train`."""
    cli.add_train(parser, argv)
    ranks = "processes among which experts and data are divided; any number gives the same bits"
    parser.add_argument("--ranks", type=int, metavar="R", help=ranks)
    pieces = "with --ranks: of a minibatch, which do determine the bits (default: 8, or as fit)"
    parser.add_argument("--pieces", type=int, metavar="P", help=pieces)
    group = "with --ranks: where a router with a capacity routes, piece or batch"
    parser.add_argument("--group", metavar="NAME", help=group)
    losses = "with --ranks: over what load-balancing losses are taken, piece or batch (default)"
    parser.add_argument("--balance-group", metavar="NAME", help=losses)
    parallel_cli.add_launch_arguments(parser)
    parser.set_defaults(argv=argv)


def run(args: argparse.Namespace) -> int:
    """Train a language model in a folder, or go on with it."""
    folder = pathlib.Path(args.folder)
    stored = run_request.stored_request(folder) if (folder / "run.json").is_file() else None
    if args.ranks is None and "pieces" not in (stored or {}):
        for name in ("pieces", "group", "balance_group", "in_process"):
            if getattr(args, name):
                raise InputError(f"--{name.replace('_', '-')}: wanted --ranks with it, got none")
        return cli.train(args)
    ranks = 1 if args.ranks is None else args.ranks
    opened, division = _open(args)
    train_over_ranks.plan_of(opened, division, ranks)  # what does not fit is told at once
    if progress.is_rank():
        return _train(opened, division, lambda: mpi_world(ranks))
    if ranks == 1:
        reason = "one rank needs no MPI"
        return _in_this_process(opened, division, ranks, reason)
    installation, reason = launch.find()
    if args.in_process or installation is None:
        reason = "as --in-process asks" if args.in_process else f"because {reason}"
        return _in_this_process(opened, division, ranks, reason)
    return _start(args, opened, ranks, installation)


def _open(args) -> tuple[Run, Division]:
    steps = 500 if args.steps is None and args.minutes is None else args.steps
    opened = run_folder.open_run(
        args.folder,
        corpus.shipped() if args.text is None else corpus.of_file(args.text),
        model=args.model,
        updates=steps,
        minutes=args.minutes,
        changes=dict(cli.change(text) for text in args.changes),
        checkpoint_every=args.checkpoint_every,
        measure=False,
    )
    division = train_over_ranks.divide(
        opened, pieces=args.pieces, group=args.group, balance_group=args.balance_group
    )
    return opened, division


# --- ranks ----------------------------------------------------------------------------------------


def _in_this_process(opened, division, ranks, reason):
    noun = "rank" if ranks == 1 else "ranks"
    print(
        f"{ranks} {noun} in one process, {reason}; {division.pieces} pieces per minibatch",
        file=sys.stderr,
    )
    return _train(opened, division, lambda: in_this_process(ranks)) or _finish(opened, [])


def _train(opened, division, world_of):
    """All ranks of this process. -> the exit status; rank 0 shows the progress, and the error on
    which all ranks agree.
    """
    with cli.end_requested() as ended:  # before the launcher knows this process
        world: World = world_of()
        try:
            opened = train_over_ranks.measured(opened, division, world)
            records = train_over_ranks.train(opened, division, world, stop=lambda: bool(ended))
            with contextlib.closing(records):
                if 0 in world.here:
                    cli.follow(records, opened, [])
                else:
                    for _ in records:
                        pass
        except RankError as error:
            if 0 in world.here:
                text = f"{error}; {run_state.kept(opened.folder)}"
                print(f"moe-np: error: {text}", file=sys.stderr)
            return 1
    return 0


def _start(args, opened, ranks, installation):
    """Start all ranks under MPI, and pass on signals to them."""
    with cli.end_requested() as ended:
        status = parallel_cli.start(args.argv, ranks, installation, args.time_limit, received=ended)
    return status or _finish(opened, ended)


def _finish(opened, ended):
    """Draw the pictures. -> the exit status: 130 where updates are left, because the end was asked
    for.
    """
    run_pictures.write(opened.folder)
    stored = run_request.stored_request(opened.folder) or {}
    if run_state.updates(opened.folder) == stored["updates"]:
        return 0
    by = f" by {ended[0]}" if ended else ""
    print(f"ended{by}; the same command goes on", file=sys.stderr)
    return 130
