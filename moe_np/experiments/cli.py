"""`moe-np list`, `moe-np run NAME` and `moe-np replay NAME`: the commands of the experiments.

The flags of `run` are the common ones and those that the experiment declares in its OPTIONS.
"""

import argparse
import functools
import importlib
import json
import pathlib
import sys
import time
from collections.abc import Callable

from moe_np.base.checks import InputError, choice, integer
from moe_np.base.files import writable_folder, write_atomically
from moe_np.base.machine import cores
from moe_np.experiments.common import registry
from moe_np.experiments.common.experiment import Option, Result
from moe_np.experiments.common.sweep import Sweep, to_json

SETTINGS = (1, 2, 3, 4)  # of the recorded runs


def add_list(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np list`."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def list_experiments(args: argparse.Namespace) -> None:
    """Print one line per experiment, or {name: line} as JSON."""
    summaries = registry.summaries()
    if args.json:
        print(json.dumps(summaries, indent=1))
        return
    for name, line in summaries.items():
        print(f"{name:18} {line}")


def add_run(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np run`, with the options of the experiment that argv names."""
    names = registry.summaries()
    parser.add_argument("name", metavar="NAME", help=" | ".join(names))
    parser.add_argument("--seeds", type=int, metavar="N", help="default: the paper's number")
    parser.add_argument(
        "--only", action="append", metavar="SYSTEM", help="one of its systems (may be given again)"
    )
    parser.add_argument("--quick", action="store_true", help="few seeds, short runs: not a result")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="default: all cores")
    _add_output(parser)
    for name in argv:
        if name in names:
            for option in registry.load(name).OPTIONS:
                _add_option(parser, option)
            return


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    flag = f"--{option.name.replace('_', '-')}"
    if not option.values:
        parser.add_argument(flag, action="store_true", default=None, help=option.help)
        return
    values = ", ".join(map(str, option.values))
    kind = type(option.values[0])
    parser.add_argument(flag, type=kind, metavar="V", help=f"{option.help} ({values})")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="results", metavar="DIR", help="default: results")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> None:
    """Run an experiment, store its runs, write its result and its report."""
    experiment = registry.load(args.name)
    options = {}
    for option in experiment.OPTIONS:
        value = getattr(args, option.name)
        if value is not None:
            options[option.name] = choice(option.name, value, option.values or (True,))
    if args.seeds is not None:
        options["seeds"] = integer("--seeds", args.seeds)
    if args.only:
        if not experiment.SYSTEMS:
            raise InputError(f"--only: {args.name} has no systems that run by themselves")
        options["only"] = tuple(choice("--only", name, experiment.SYSTEMS) for name in args.only)
    jobs = integer("--jobs", args.jobs)
    out = writable_folder(args.out)
    with Sweep(out / "runs", jobs=jobs) as sweep:
        compute = functools.partial(experiment.run, sweep=sweep, quick=args.quick, **options)
        write_report(args, out, args.name, compute, experiment.report)


def add_replay(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np replay`."""
    parser.add_argument("name", metavar="NAME", help=" | ".join(registry.replays()))
    parser.add_argument("--setting", type=int, default=1, metavar="S", help="1 (default), 2, 3, 4")
    _add_output(parser)


def replay(args: argparse.Namespace) -> None:
    """Repeat the recorded runs of a publication from their random numbers."""
    name = choice("replay", args.name, registry.replays())
    setting = choice("--setting", args.setting, SETTINGS)
    out = writable_folder(args.out)
    module = importlib.import_module(f"moe_np.experiments.{name}.replay")
    compute = functools.partial(module.replay, setting, store=out / "runs")
    write_report(args, out, f"replay_{name}_s{setting}", compute, module.report)


def write_report(
    args: argparse.Namespace,
    out: pathlib.Path,
    name: str,
    compute: Callable[[], Result],
    report: Callable[[Result], str],
) -> None:
    """Compute a result, write NAME.json and NAME.md into `out`, and print one of the two."""
    start = time.perf_counter()
    result = compute()
    text = report(result)
    write_atomically(out / f"{name}.json", to_json(result))
    write_atomically(out / f"{name}.md", text.rstrip() + "\n")
    seconds = time.perf_counter() - start
    print(f"{seconds:.1f} s; wrote {out / name}.json and .md", file=sys.stderr)
    print(to_json(result) if args.json else text, end="" if args.json else "\n")
