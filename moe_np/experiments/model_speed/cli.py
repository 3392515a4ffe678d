"""The command `moe-np bench model`: time whole models beside PyTorch and Transformers.

The table, or with --json the rows, goes to stdout, and progress to stderr. Ctrl-C ends the bench
with what it has measured so far and status 130.
"""

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moe-np bench model`."""
    parser.add_argument("--quick", action="store_true", help="two small models: not a result")
    parser.add_argument("--json", action="store_true", help="one object per workload and impl")


def bench(args: argparse.Namespace) -> int:
    """Run the bench, print its table, and return the exit status."""
    from moe_np.experiments.model_speed import bench as timing

    result = timing.run(quick=args.quick, progress=_progress)
    if args.json:
        _progress(timing.what_was_done(result.facts))
        print(json.dumps(result.rows, indent=1))
    elif result.rows:
        print(timing.table(result))
    if result.facts.interrupted:
        print("moe-np: interrupted", file=sys.stderr)
        return 130
    return 0


def _progress(text):
    print(text, file=sys.stderr, flush=True)
