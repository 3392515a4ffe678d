"""The command `moe-np bench`: time the sparse layer beside a dense network and peers.

The table, or with --json the rows, goes to stdout, and progress to stderr. Ctrl-C ends the bench
with what it has measured so far and status 130.
"""

import argparse
import datetime
import json
import pathlib
import sys
from typing import TYPE_CHECKING

from moe_np.base.checks import InputError
from moe_np.experiments.model_speed import cli as whole_models

if TYPE_CHECKING:
    from moe_np.experiments.layer_speed.problem import Shape

DEFAULT = "-"  # --record without a file


def add_bench(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np bench`, and of `moe-np bench model`."""
    subjects = "`model`: whole models, their training, reading and generation"
    parser.add_argument("subject", nargs="?", choices=["model"], metavar="model", help=subjects)
    if "model" in argv:
        whole_models.add_arguments(parser)
        return
    parser.add_argument("--expert", default="swiglu", metavar="X", help="swiglu (default) or relu")
    parser.add_argument("--quick", action="store_true", help="two small shapes: not a result")
    shapes = "tokens, width and experts; may be given several times (default: nine shapes)"
    parser.add_argument("--shape", action="append", default=[], metavar="N,D,E", help=shapes)
    parser.add_argument("--json", action="store_true", help="one object per shape and contestant")
    recording = "append the ratios to a file (default: figures/layer_speed/bench_history.jsonl)"
    parser.add_argument("--record", nargs="?", const=DEFAULT, metavar="FILE", help=recording)


def bench(args: argparse.Namespace) -> int:
    """Run the bench, print its table, and return the exit status."""
    if args.subject == "model":
        return whole_models.bench(args)
    from moe_np.experiments.layer_speed import bench as timing
    from moe_np.experiments.layer_speed import history

    shapes = [parse_shape(text) for text in args.shape]
    path = args.record and (
        history.default_file() if args.record == DEFAULT else pathlib.Path(args.record)
    )
    result = timing.run(args.expert, quick=args.quick, shapes=shapes, progress=_progress)
    if args.json:
        _progress(timing.what_was_done(result.facts))
        print(json.dumps(result.rows, indent=1))
    elif result.rows:
        print(timing.table(result))
    if path and result.rows:
        history.append(path, history.record(result, datetime.date.today()))
        _progress(f"recorded in {path}")
    if result.facts.interrupted:
        print("moe-np: interrupted", file=sys.stderr)
        return 130
    return 0


def parse_shape(text: str) -> "Shape":
    """The text "4096,64,8" as a `Shape` of tokens, width and experts. Raises InputError for another
    text.
    """
    from moe_np.experiments.layer_speed.problem import Shape

    try:
        tokens, d, experts = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--shape: wanted N,D,E such as 4096,64,8, got {text!r}") from None
    if min(tokens, d) < 1 or experts < 2:  # two choices per token
        raise InputError(
            f"--shape: wanted at least one token, one feature and two experts, got {text!r}"
        )
    return Shape(tokens, d, experts)


def _progress(text):
    print(text, file=sys.stderr, flush=True)
