"""The command line, `moe-np`: list, run, replay, count.

Results go to files (atomically) and, with --json, to stdout; progress and remarks go to stderr. An
error is one line and an exit status other than 0: 2 for bad input, 1 for the system's refusals, 130
for Ctrl-C.
"""

import argparse
import concurrent.futures.process
import functools
import importlib
import json
import os
import pathlib
import sys
import tempfile
import time

import moe_np
from moe_np import accounting
from moe_np.base.checks import InputError, choice, integer
from moe_np.experiments import EXPERIMENTS
from moe_np.experiments.common.sweep import Sweep, to_json, write_atomically

REPLAYS = {"chen2022": "moe_np.experiments.chen2022.replay"}


def cores():
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def writable_folder(path):
    """Make the folder and try a file in it, so that a refusal comes before the work and not after
    it.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"out: wanted a folder that can be written, got {path} ({error.strerror})"
        ) from None
    return path


def guarded(main, argv, prog):
    """Run `main(argv)`; turn every foreseeable failure into one line on stderr and an exit status."""
    try:
        return main(argv) or 0
    except InputError as error:
        message, status = str(error), 2
    except KeyboardInterrupt:
        message, status = (
            "interrupted; finished runs are stored, the same command goes on from there",
            130,
        )
    except concurrent.futures.process.BrokenProcessPool:
        message, status = (
            "a worker process died; finished runs are stored, the same command goes on from there",
            1,
        )
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the reader left: nothing more to say
        return 1
    except OSError as error:
        message, status = f"{error.filename or 'system'}: {error.strerror or error}", 1
    print(f"{prog}: error: {message}", file=sys.stderr)
    return status


def parser(argv=None):
    top = argparse.ArgumentParser(
        prog="moe-np", description="Mixture of experts in NumPy: run a paper's experiment."
    )
    top.add_argument("--version", action="version", version=f"moe-np {moe_np.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="the experiments")
    listing.add_argument("--json", action="store_true", help="print as JSON")

    run = commands.add_parser("run", help="run an experiment, store its runs, write its table")
    run.add_argument("name", metavar="NAME", help=" | ".join(EXPERIMENTS))
    run.add_argument(
        "--seeds", type=int, metavar="N", help="how many seeds (default: the paper's number)"
    )
    run.add_argument(
        "--variant",
        metavar="V",
        help="chen2022: code (as published, the default) or paper (as written)",
    )
    run.add_argument(
        "--setting",
        type=int,
        metavar="S",
        help="chen2022: data of setting 1 (the default), 2, 3 or 4",
    )
    run.add_argument(
        "--sensitivity",
        action="store_true",
        default=None,
        help="jacobs1991, jordan1994: other choices",
    )
    run.add_argument(
        "--quick", action="store_true", help="few seeds and short runs: a look, not a result"
    )

    replay = commands.add_parser(
        "replay", help="repeat a publication's recorded runs from its random numbers"
    )
    replay.add_argument("name", metavar="NAME", help=" | ".join(REPLAYS))
    replay.add_argument(
        "--setting", type=int, default=1, metavar="S", help="1 (the default), 2, 3 or 4"
    )

    counting = commands.add_parser(
        "count", help="parameters, memory and operations of a published model"
    )
    counting.add_argument(
        "name",
        metavar="NAME",
        help="mixtral-8x7b, switch-base, moe-4096-h, ...; an unknown one lists all",
    )
    counting.add_argument("--json", action="store_true", help="print as JSON")

    timing = commands.add_parser(
        "bench", help="time the sparse layer, beside a dense net and what peers are installed"
    )
    timing.add_argument(
        "--expert", default="swiglu", metavar="X", help="swiglu (the default) or relu"
    )
    timing.add_argument(
        "--quick", action="store_true", help="two small shapes: a look, not a result"
    )
    timing.add_argument(
        "--json",
        action="store_true",
        help="print as JSON: a list, one object a shape and contestant",
    )

    coursework = commands.add_parser("coursework", help="assignments: list, release, check, grade")
    if argv is None or "coursework" in argv:
        own = coursework.add_subparsers(dest="coursework", required=True, metavar="WHAT")
        importlib.import_module("moe_np.coursework.cli").add(own)

    for command in (run, replay):
        command.add_argument(
            "--out", default="results", metavar="DIR", help="where results go (default: results)"
        )
        command.add_argument(
            "--json", action="store_true", help="print the result as JSON instead of the table"
        )
    run.add_argument(
        "--jobs", type=int, default=cores(), metavar="N", help="processes (default: all cores)"
    )
    return top


def main(argv=None):
    """Entry point: parse, do, and return the exit status."""
    return guarded(_main, sys.argv[1:] if argv is None else argv, "moe-np")


def _main(argv):
    args = parser(argv).parse_args(argv)
    return COMMANDS[args.command](args)


def coursework(args):
    return importlib.import_module("moe_np.coursework.cli").run(args)


def list_experiments(args):
    if args.json:
        print(json.dumps({name: text for name, (_, text) in EXPERIMENTS.items()}, indent=1))
    for name, (_, text) in () if args.json else EXPERIMENTS.items():
        print(f"{name:18} {text}")


def count(args):
    counts = accounting.count(args.name)
    parts = {name: part._asdict() for name, part in counts.parts.items()}
    print(
        to_json({**counts._asdict(), "parts": parts}).rstrip()
        if args.json
        else accounting.table(counts)
    )


def bench(args):
    bench_layer = importlib.import_module("moe_np.experiments.layer_speed.bench")
    rows, facts = bench_layer.run(
        args.expert, quick=args.quick, say=lambda text: print(text, file=sys.stderr, flush=True)
    )
    print(json.dumps(rows, indent=1) if args.json else bench_layer.table(rows, facts))


def run(args):
    module, _ = EXPERIMENTS[choice("experiment", args.name, tuple(EXPERIMENTS))]
    experiment = importlib.import_module(module)
    own = {k: getattr(args, k) for k in ("setting", "variant", "sensitivity")}
    options = {k: v for k, v in own.items() if v is not None}
    unknown = set(options) - set(getattr(experiment, "OPTIONS", ()))
    if unknown:
        raise InputError(f"--{min(unknown)}: {args.name} has no such option")
    if args.seeds is not None:
        options["seeds"] = integer("--seeds", args.seeds)
    jobs = integer("--jobs", args.jobs)
    out = writable_folder(args.out)
    with Sweep(out / "runs", jobs=jobs) as sweep:
        compute = functools.partial(experiment.run, sweep=sweep, quick=args.quick, **options)
        report(args, out, args.name, compute, experiment)


def replay(args):
    module = REPLAYS[choice("replay", args.name, tuple(REPLAYS))]
    setting = choice("--setting", args.setting, (1, 2, 3, 4))
    out = writable_folder(args.out)
    again = importlib.import_module(module)
    name = f"replay_{args.name}_s{setting}"
    report(args, out, name, functools.partial(again.replay, setting, store=out / "runs"), again)


def report(args, out, name, compute, module):
    """Compute, write NAME.json and NAME.md, and print one of the two."""
    start = time.perf_counter()
    result = compute()
    write_atomically(out / f"{name}.json", to_json(result))
    table = module.table(result)
    write_atomically(out / f"{name}.md", table.rstrip() + "\n")
    print(f"{time.perf_counter() - start:.1f} s; wrote {out / name}.json and .md", file=sys.stderr)
    print(to_json(result) if args.json else table, end="" if args.json else "\n")


COMMANDS = {
    "list": list_experiments,
    "run": run,
    "replay": replay,
    "count": count,
    "bench": bench,
    "coursework": coursework,
}
