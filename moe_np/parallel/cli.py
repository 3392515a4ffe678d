"""`moe-np parallel`: a step of the sparse layer over ranks, under MPI or in one process.

Without a rank's environment the command starts itself under mpiexec, one process per rank; where
there is no MPI, all ranks run in this process. It says which. Results go to stdout, remarks and
errors to stderr.
"""

import argparse
import json
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.parallel import agreement, dropped, in_process, launch, layer_step, mpi, progress
from moe_np.parallel.exchanges import RankError, shares
from moe_np.parallel.layer_step import Sizes
from moe_np.parallel.mpi import Timing
from moe_np.routing import switch


class Report(NamedTuple):
    """What the command prints."""

    ranks: int
    by: str  # MPI and its maker, or one process and why
    sizes: dict[str, Any]
    dtype: str
    digest: str  # of all results; it depends on the number of pieces, not of ranks
    tokens: list[int]  # per rank
    experts: list[int]
    exchanges: list[list[Timing]]  # per rank
    differences: dict[str, float | None] | None  # with --check: None where the bits are equal


def add_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np parallel`."""
    parser.add_argument("--ranks", type=int, default=2, metavar="R", help="processes (default: 2)")
    check = "compare with one process; the exit status is 1 where a bit differs"
    parser.add_argument("--check", action="store_true", help=check)
    drops = "print what Switch's capacity drops of the same tokens on 1 to 8 ranks, and end"
    parser.add_argument("--dropped", action="store_true", help=drops)
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_launch_arguments(parser)
    for name, default in Sizes()._asdict().items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, metavar="N")
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.set_defaults(argv=argv)


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that runs over ranks."""
    alone = "all ranks in this process, also where MPI is installed"
    parser.add_argument("--in-process", action="store_true", help=alone)
    limit = "seconds without an exchange, after which all ranks are ended (default: 120)"
    parser.add_argument(
        "--time-limit", type=float, default=launch.TIME_LIMIT, metavar="S", help=limit
    )


def run(args: argparse.Namespace) -> int:
    """Run a step over ranks, and print what each rank did."""
    if args.dropped:
        return _print_dropped(args)
    ranks = checks.integer("--ranks", args.ranks)
    sizes = Sizes(*(getattr(args, name) for name in Sizes._fields))
    given = layer_step.problem(sizes, dtype=args.dtype, seed=args.seed)
    layer_step.check_ranks(sizes, ranks)
    if progress.is_rank():
        return guarded(lambda: _as_rank(args, given), mpi.world(ranks).rank)
    installation, reason = launch.find()
    if installation is not None and not args.in_process:
        return start(args.argv, ranks, installation, args.time_limit)
    by = "one process" if args.in_process else f"one process, because {reason}"
    return guarded(lambda: _in_this_process(args, given, by), 0)


def start(
    argv: list[str],
    ranks: int,
    installation: launch.Installation,
    time_limit: float,
    *,
    received: list[str] | None = None,
) -> int:
    """Run this command of `moe-np` on all ranks; -> the exit status.

    received   as in `launch.run`: signals to pass on
    """
    print(f"{ranks} ranks by {installation.maker}, {installation.mpiexec}", file=sys.stderr)
    command = ["-m", "moe_np", *argv]
    ended = launch.run(command, ranks, installation, time_limit=time_limit, received=received)
    if ended.message is not None:
        text = f"{ended.message}; all ranks were ended after {ended.seconds:.1f} s"
        print(f"moe-np: error: {text}", file=sys.stderr)
    return ended.status


def guarded(step: Any, rank: int) -> int:
    """Run `step()`; rank 0 prints the error on which all ranks agree."""
    try:
        return step()
    except RankError as error:
        if rank == 0:
            print(f"moe-np: error: {error}", file=sys.stderr)
        return 1


# --- the step -------------------------------------------------------------------------------------


def _as_rank(args, given):
    communicator = mpi.world()
    rank = communicator.rank
    clock: list[Timing] = []
    mpi.run(agreement.same({"router": given.router, "experts": given.params}))
    result = mpi.run(layer_step.whole(given, rank, args.ranks), clock=clock)
    clocks = communicator.gather(clock)
    if rank != 0:
        return 0
    return _print(args, given, result, f"MPI, {_version()}", clocks)


def _version():
    text = mpi.library().Get_library_version()
    return " ".join(text.replace("\0", " ").split()[:3])


def _in_this_process(args, given, by):
    ranks = [layer_step.whole(given, rank, args.ranks) for rank in range(args.ranks)]
    results: list[Any] = [None] * args.ranks
    clocks: list[list[Timing]] = [[] for _ in ranks]
    start = time.perf_counter()
    for exchanged in in_process.exchanges(ranks, results):
        share = (time.perf_counter() - start) / len(ranks)  # the ranks take turns
        for rank, exchange in enumerate(exchanged):
            sent = mpi.bytes_sent(exchange, rank, len(ranks))
            clocks[rank].append(Timing(exchange.name, share, 0.0, 0.0, sent))
        start = time.perf_counter()
    return _print(args, given, results[0], by, clocks)


def _print(args, given, result, by, clocks):
    ranks = args.ranks
    differ = None
    if args.check:
        differ = layer_step.differences(layer_step.in_one_process(given), result)
    report = Report(
        ranks,
        by,
        given.sizes._asdict(),
        args.dtype,
        layer_step.digest(result),
        np.diff(layer_step.bounds_of_pieces(given.sizes, ranks)).tolist(),
        np.diff(shares(given.sizes.experts, ranks)).tolist(),
        clocks,
        differ,
    )
    if args.json:
        rows = [[timing._asdict() for timing in clock] for clock in clocks]
        print(json.dumps({**report._asdict(), "exchanges": rows}))
    else:
        print(text_of(report))
    return 1 if differ and any(value is not None for value in differ.values()) else 0


def text_of(report: Report) -> str:
    """The report as a table per rank, and what `--check` has found."""
    lines = [f"{report.ranks} ranks, {report.by}; {report.dtype}, {report.sizes}"]
    lines.append("rank  tokens  experts  compute ms  waiting ms  message ms  bytes sent")
    for rank, clock in enumerate(report.exchanges):
        compute = 1e3 * sum(timing.compute for timing in clock)
        wait = 1e3 * sum(timing.wait for timing in clock)
        transfer = 1e3 * sum(timing.transfer for timing in clock)
        sent = sum(timing.bytes for timing in clock)
        lines.append(
            f"{rank:>4}{report.tokens[rank]:>8}{report.experts[rank]:>9}{compute:>12.2f}"
            f"{wait:>12.2f}{transfer:>12.2f}{sent:>12}"
        )
    lines.append(f"digest {report.digest}, of {report.sizes['pieces']} pieces on any ranks")
    for name, difference in (report.differences or {}).items():
        equal = "equal to the bit" if difference is None else f"differs by {difference:.1e}"
        lines.append(f"{name:<12} {equal}, beside one process")
    return "\n".join(lines)


# --- what a capacity drops ------------------------------------------------------------------------

FACTOR = 1.25  # Switch's capacity factor


def _print_dropped(args):
    """The tokens are documents, kept together and shuffled: 2048 tokens, 8 topics, 8 experts."""
    rng = np.random.default_rng(checks.integer("--seed", args.seed, minimum=0))
    x = dropped.documents(rng)
    params = switch.init(rng, x.shape[1], 8, scale=1.0)
    orders = {"documents together": x, "shuffled": rng.permutation(x)}
    options = {"capacity_factor": FACTOR}
    rows = {
        name: dropped.dropped_shares(switch, params, tokens, options, (1, 2, 4, 8))
        for name, tokens in orders.items()
    }
    if args.json:
        print(json.dumps({name: [row._asdict() for row in of] for name, of in rows.items()}))
        return 0
    print(f"Switch's capacity {FACTOR} per rank, the same {len(x)} tokens on more ranks")
    print("tokens               ranks  dropped  balance loss")
    for name, of in rows.items():
        for row in of:
            print(f"{name:<20}{row.ranks:>6}{row.dropped:>9.1%}{row.balance:>14.3f}")
    return 0
