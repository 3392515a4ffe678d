"""`moe-np audit FILE.py:NAME`: hold a router or a layer of somebody else against the reference.

The code under audit is the user's own and runs as such: it is imported and called, without a
sandbox, in a process of its own.
"""

import argparse
import ast
import sys
from typing import Any

from moe_np.audit import audit, limits
from moe_np.audit.frameworks import FRAMEWORKS
from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically


def add_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np audit`."""
    parser.description = (
        "Hold a router or a whole layer, in NumPy, PyTorch or JAX, against the reference. "
        "The code is your own and runs as such: it is imported and called. "
        "Exit status 1 means that something is wrong."
    )
    parser.add_argument("target", metavar="FILE.py:NAME", help="or package.module:NAME")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--html", metavar="OUT", help="write a page")
    parser.add_argument("--d-model", type=int, metavar="D", help="features per token")
    parser.add_argument("--experts", type=int, metavar="E", help="number of experts")
    parser.add_argument("--k", type=int, metavar="K", help="choices per token")
    parser.add_argument("--capacity-factor", type=float, metavar="F", help="of the capacity")
    parser.add_argument("--framework", choices=tuple(FRAMEWORKS), help="default: from the code")
    parser.add_argument("--like", metavar="ROUTER", help="the router that it should equal")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of that router"
    )
    parser.add_argument(
        "--time-limit", type=float, default=limits.LIMIT, metavar="S", help="per check"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 where something is wrong."""
    report = audit(
        args.target,
        d_model=args.d_model,
        experts=args.experts,
        k=args.k,
        capacity_factor=args.capacity_factor,
        framework=args.framework,
        like=args.like,
        options=dict(map(option, args.option)),
        time_limit=args.time_limit,
    )
    print(report.json() if args.json else report)
    if args.html:
        write_atomically(args.html, report.page())
        print(f"wrote {args.html}", file=sys.stderr)
    return 1 if report.faults else 0


def option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, where VALUE is a literal of Python, or a word."""
    name, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"--option: wanted NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
