"""The command line, `moe-np`: list, run and replay experiments, count, bench, coursework.

A room of the package that has commands has them in its `cli.py`; COMMANDS says which. Results go to
files (written atomically) and, with --json, to stdout; progress and remarks go to stderr. An error
is one line and an exit status other than 0: 2 for bad input, 1 for a refusal of the system, 130 for
Ctrl-C.
"""

import argparse
import concurrent.futures.process
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import moe_np
from moe_np.base.checks import InputError


class Command(NamedTuple):
    """One command: its help, and the module with its two functions, imported when it is called."""

    help: str
    module: str
    add_arguments: str  # the name of a function (parser, argv)
    run: str  # the name of a function (args)


COMMANDS = {
    "list": Command("the experiments", "moe_np.experiments.cli", "add_list", "list_experiments"),
    "run": Command(
        "run an experiment, store its runs, write its report",
        *("moe_np.experiments.cli", "add_run", "run"),
    ),
    "replay": Command(
        "repeat a publication's recorded runs from its random numbers",
        *("moe_np.experiments.cli", "add_replay", "replay"),
    ),
    "count": Command(
        "parameters, memory and operations of a published model",
        *("moe_np.cli", "add_count", "count"),
    ),
    "bench": Command(
        "time the sparse layer beside a dense net and the peers that are installed",
        *("moe_np.experiments.layer_speed.cli", "add_bench", "bench"),
    ),
    "train": Command(
        "train a language model in a folder, or go on with it",
        *("moe_np.language.train_cli", "add_arguments", "run"),
    ),
    "generate": Command(
        "continue a text with a language model, token by token",
        *("moe_np.serving.cli", "add_generate", "generate"),
    ),
    "evaluate": Command(
        "perplexity and bits per byte of a language model on a text",
        *("moe_np.language.cli", "add_evaluate", "evaluate"),
    ),
    "adapt": Command(
        "upcycle, prune, merge, distil or fine-tune the decoder of a folder",
        *("moe_np.adapt.cli", "add_arguments", "run"),
    ),
    "audit": Command(
        "hold a router or a layer of your own against the reference",
        *("moe_np.audit.cli", "add_arguments", "run"),
    ),
    "cost": Command(
        "time and memory of a published model on many devices, by a model",
        *("moe_np.parallel.cost_cli", "add_arguments", "run"),
    ),
    "parallel": Command(
        "a step of the sparse layer over several processes, by MPI",
        *("moe_np.parallel.cli", "add_arguments", "run"),
    ),
    "coursework": Command(
        "assignments: list, release, check, grade",
        *("moe_np.coursework.cli", "add_arguments", "run"),
    ),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, so that every error of the program is one line."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise InputError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: parse, run the command, and return the exit status."""
    return guarded(_main, list(sys.argv[1:] if argv is None else argv), "moe-np")


def _main(argv):
    parser = Parser(prog="moe-np", description="Mixture of experts in NumPy.")
    parser.add_argument("--version", action="version", version=f"moe-np {moe_np.__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = parsers.add_parser(name, help=command.help, description=command.help)
        if name in argv:
            module = importlib.import_module(command.module)
            getattr(module, command.add_arguments)(subparser, argv)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        name = getattr(args, "name", args.command)
        raise InputError(f"{unknown[0]}: {name} has no such option")
    command = COMMANDS[args.command]
    return getattr(importlib.import_module(command.module), command.run)(args)


def guarded(main: Callable[[list[str]], int | None], argv: list[str], prog: str) -> int:
    """Run `main(argv)`; turn a foreseeable failure into one line on stderr and an exit status."""
    resume = "finished runs are stored, the same command continues from there"
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a name that the terminal's encoding lacks is no error
            reconfigure(errors="backslashreplace")
    try:
        return main(argv) or 0
    except InputError as error:
        message, status = str(error), 2
    except KeyboardInterrupt:
        message, status = f"interrupted; {resume}", 130
    except concurrent.futures.process.BrokenProcessPool:
        message, status = f"a worker process died; {resume}", 1
    except BrokenPipeError:
        # the reader has gone, so there is nothing left to print
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message, status = f"{error.filename or 'system'}: {error.strerror or error}", 1
    print(f"{prog}: error: {message}", file=sys.stderr)
    return status


def add_count(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np count`."""
    models = "mixtral-8x7b, switch-base, moe-4096-h, ...; an unknown one lists all"
    parser.add_argument("name", metavar="NAME", help=models)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def count(args: argparse.Namespace) -> None:
    """Print parameters, memory and operations of a published model."""
    from moe_np import accounting

    counts = accounting.count(args.name)
    if args.json:
        parts = {name: part._asdict() for name, part in counts.parts.items()}
        print(json.dumps({**counts._asdict(), "parts": parts}, indent=1, ensure_ascii=False))
    else:
        print(accounting.table(counts))
