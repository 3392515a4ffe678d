"""Make every figure and table of the papers, with the published numbers beside ours.

    python -m figures                     the two papers that it began with, in about four minutes on two cores
    python -m figures --full              all figures there are, with as many runs as anybody published
    python -m figures jacobs1991_fig2     these
    python -m figures --quick             few seeds and short runs, to see that it works

Pictures go to figures/out as PNG and SVG, tables and texts to figures/out/REPORT.md, finished runs
to figures/out/runs: a second call, or one after a kill, only does what is missing.

A script lies in the folder of its paper and has a docstring that says what to see, TITLE, ORDER
(its place in the report; from 100 on it is made with --full or by name only) and make(job) ->
Markdown. It may have specs(job) -> (run_one, [spec, ...]): its runs start early, so that no core
waits while a picture is drawn.
"""

import argparse
import importlib
import pathlib
import re
import sys
import time

from moe_np.base.checks import InputError, integer
from moe_np.cli import cores, guarded, writable_folder
from moe_np.experiments.common.sweep import Sweep, versions, write_atomically

HERE = pathlib.Path(__file__).resolve().parent

FULL_ONLY = 100  # scripts whose ORDER is this or above are made with --full, or by name


def find_scripts():
    """{name: (module path, ORDER)} of all scripts, found by walking, in the order of the report.

    The name is folder and file, as in `jacobs1991_fig1`; the folder alone for a file called
    `figure`.
    """
    found = []
    for path in HERE.rglob("*.py"):
        parts = path.relative_to(HERE).with_suffix("").parts
        order = re.search(r"^ORDER = (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if order:
            name = "_".join(part for part in parts if part != "figure")
            found.append((int(order[1]), name, ".".join(("figures", *parts))))
    return {name: (module, order) for order, name, module in sorted(found)}


SCRIPTS = find_scripts()


class Job:
    """What a script gets: `sweep` to run seeds, `quick` (a look) or `full` (spare nothing), `save`
    for pictures.
    """

    def __init__(self, sweep, out, quick=False, full=False):
        self.sweep, self.out, self.quick, self.full = sweep, out, quick, full

    def save(self, fig, name):
        """Write the figure as NAME.png and NAME.svg (the same bytes for the same picture) and close
        it.
        """
        import matplotlib.pyplot as plt

        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            unfinished = self.out / f".{name}.{kind}"
            fig.savefig(unfinished, format=kind, dpi=200, bbox_inches="tight", metadata=metadata)
            unfinished.replace(self.out / f"{name}.{kind}")
        plt.close(fig)


def report(out, quick):
    """Join the sections made so far, in their order."""
    parts = ["# The papers' numbers beside ours\n"]
    if quick:
        parts.append(
            "**Made with `--quick`: few seeds and short runs. These numbers show that it works and nothing else.**\n"
        )
    parts.append(
        "Made by `python -m figures` with "
        + ", ".join(f"{k} {v}" for k, v in versions().items())
        + ".\n"
    )
    for name in SCRIPTS:
        section = out / "sections" / f"{name}.md"
        if section.exists():
            parts.append(section.read_text(encoding="utf-8"))
    write_atomically(out / "REPORT.md", "\n".join(parts))


def start_ahead(job, scripts):
    """Start the runs that these scripts name, in their order."""
    for script in scripts:
        if hasattr(script, "specs"):
            job.sweep.submit(*script.specs(job))


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m figures", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCRIPTS))
    parser.add_argument("--quick", action="store_true", help="few seeds and short runs")
    parser.add_argument("--full", action="store_true", help="all figures, ten runs of everything")
    parser.add_argument(
        "--jobs", type=int, default=cores(), metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where to (default: figures/out, with --quick figures/out/quick)",
    )
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in SCRIPTS:
            raise InputError(f"NAME: wanted one of {', '.join(SCRIPTS)}; got {name!r}")
    if args.quick and args.full:
        raise InputError("--quick, --full: wanted one of them, got both")
    out = writable_folder(args.out or HERE / "out" / ("quick" if args.quick else ""))

    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "moe_np"
    names = [name for name, (_, order) in SCRIPTS.items() if args.full or order < FULL_ONLY]
    if args.names:
        names = [name for name in SCRIPTS if name in args.names]
    start = time.perf_counter()
    with Sweep(out / "runs", jobs=integer("--jobs", args.jobs)) as sweep:
        job = Job(sweep, out, args.quick, args.full)
        modules = {name: importlib.import_module(SCRIPTS[name][0]) for name in names}
        started = False
        for i, (name, script) in enumerate(modules.items(), 1):
            before = time.perf_counter()
            if (
                hasattr(script, "specs") and not started
            ):  # not sooner: scripts before this one want the cores now
                started = True
                start_ahead(job, list(modules.values())[i - 1 :])
            text = script.make(job)
            write_atomically(
                out / "sections" / f"{name}.md", f"## {script.TITLE}\n\n{text.strip()}\n"
            )
            report(out, args.quick)
            now = time.perf_counter()
            print(
                f"[{i}/{len(names)}] {name:24} {now - before:6.1f} s, {now - start:6.1f} s in all",
                file=sys.stderr,
            )
    print(out / "REPORT.md")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:], "python -m figures"))
