"""Make every figure and table of the papers, with the published numbers beside ours.

    python -m figures                    Jacobs et al. 1991 and Chen et al. 2022, about four
                                         minutes on two cores
    python -m figures --full             all figures, with the published number of runs: some four
                                         hours, and the same command goes on after an interruption
    python -m figures jacobs1991_fig2    only these
    python -m figures --quick            few seeds and short runs, to see that everything works

Pictures go to figures/out as PNG and SVG, tables and texts to figures/out/REPORT.md, finished runs
to figures/out/runs: a second call, or one after a kill, makes only what is missing.

A script lies in the folder of its paper. It has a docstring that says what to see, TITLE, ORDER
(its place in the report; from 100 on it is made with --full or by name only) and
make(job) -> Markdown, where `job` is a `figures.Job`. It may have specs(job) -> (run_one, specs):
these runs start early, so that no core waits while a picture is drawn; and TIMED = True, if it
measures times: no other run starts early then before it is made; and NEEDS = {module: extra},
without which it cannot be made: this is seen before anything is run.
"""

import argparse
import importlib
import os
import pathlib
import re
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from figures import Job
from moe_np.base.checks import InputError, integer
from moe_np.base.files import writable_folder, write_atomically
from moe_np.base.machine import cores
from moe_np.cli import guarded
from moe_np.experiments.common import extras
from moe_np.experiments.common.reports import plural
from moe_np.experiments.common.sweep import Sweep, versions

HERE = pathlib.Path(__file__).resolve().parent
FULL_ONLY = 100  # scripts whose ORDER is this or above are made with --full, or by name
QUICK_WARNING = (
    "**Made with `--quick`: few seeds and short runs. "
    "These numbers show that it works and nothing else.**\n"
)


class Script(NamedTuple):
    """A script, found by walking."""

    module: str  # its import path
    order: int  # its place in the report


def find_scripts() -> dict[str, Script]:
    """All scripts by name, in the order of the report.

    The name is folder and file, as in `jacobs1991_fig1`; the folder alone for a file called
    `figure`.
    """
    scripts = []
    for path in HERE.rglob("*.py"):
        parts = path.relative_to(HERE).with_suffix("").parts
        order = re.search(r"^ORDER = (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if order:
            name = "_".join(part for part in parts if part != "figure")
            scripts.append((int(order[1]), name, ".".join(("figures", *parts))))
    return {name: Script(module, order) for order, name, module in sorted(scripts)}


SCRIPTS = find_scripts()


def report(out: pathlib.Path, quick: bool) -> None:
    """Write REPORT.md: the sections made so far, in their order."""
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    parts = ["# The papers' numbers beside ours\n"]
    if quick:
        parts.append(QUICK_WARNING)
    runs = sum(1 for _ in (out / "runs").rglob("*.json"))
    made = f"from {plural(runs, 'stored run')}, those of earlier calls included"
    parts.append(f"Made by `python -m figures` with {used}, {made}.\n")
    sections = [out / "sections" / f"{name}.md" for name in SCRIPTS]
    parts += [path.read_text(encoding="utf-8") for path in sections if path.exists()]
    write_atomically(out / "REPORT.md", "\n".join(parts))


def start_ahead(job: Job, scripts: Sequence[ModuleType]) -> int:
    """Start the runs that these scripts name, in their order, up to the first script that measures
    times. Returns how many scripts need not be looked at again.
    """
    for i, script in enumerate(scripts):
        if getattr(script, "TIMED", False):
            return i or 1
        if hasattr(script, "specs"):
            job.sweep.submit(*script.specs(job))
    return len(scripts)


def make(job: Job, names: Sequence[str]) -> None:
    """Make these scripts, one section each; the report is written after every one."""
    scripts = [importlib.import_module(SCRIPTS[name].module) for name in names]
    for script in scripts:
        for module, extra in getattr(script, "NEEDS", {}).items():
            extras.require(module, extra)
    start = time.perf_counter()
    started = 0
    for i, (name, script) in enumerate(zip(names, scripts, strict=True)):
        before = time.perf_counter()
        # not sooner: the scripts before this one want the cores
        if i >= started and hasattr(script, "specs"):
            started = i + start_ahead(job, scripts[i:])
        section = f"## {script.TITLE}\n\n{script.make(job).strip()}\n"
        write_atomically(job.out / "sections" / f"{name}.md", section)
        report(job.out, job.quick)
        now = time.perf_counter()
        times = f"{now - before:6.1f} s, {now - start:6.1f} s in all"
        print(f"[{i + 1}/{len(names)}] {name:24} {times}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    out = argparse.ArgumentParser(prog="python -m figures", description=__doc__.partition("\n")[0])
    out.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCRIPTS))
    out.add_argument("--quick", action="store_true", help="few seeds and short runs")
    out.add_argument("--full", action="store_true", help="all figures, all published runs")
    out.add_argument("--jobs", type=int, default=cores(), metavar="N", help="default: all cores")
    default = "default: figures/out, with --quick figures/out/quick"
    out.add_argument("--out", metavar="DIR", help=f"where the results go ({default})")
    return out


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, make the figures, and print the path of the report."""
    args = parser().parse_args(argv)
    for name in args.names:
        if name not in SCRIPTS:
            raise InputError(f"NAME: wanted one of {', '.join(SCRIPTS)}; got {name!r}")
    if args.quick and args.full:
        raise InputError("--quick, --full: wanted one of them, got both")
    out = writable_folder(args.out or HERE / "out" / ("quick" if args.quick else ""))

    os.environ["MPLBACKEND"] = "agg"  # a notebook's own back end would fail at the import
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "moe_np"
    names = [name for name, script in SCRIPTS.items() if args.full or script.order < FULL_ONLY]
    if args.names:
        names = [name for name in SCRIPTS if name in args.names]
    with Sweep(out / "runs", jobs=integer("--jobs", args.jobs)) as sweep:
        make(Job(sweep, out, args.quick, args.full), names)
    print(out / "REPORT.md")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:], "python -m figures"))
