"""The speed of the sparse layer over time, from the recorded runs of `moe-np bench --record`.

What to see: how many times the floor of the machine the layer takes, one line per shape and
machine. A line that rises says that a change of the code has made the layer slower.
"""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.layer_speed import history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "The sparse layer: its speed over time"
ORDER = 111

MODES = ("forward", "forward+backward")
MARKERS = "osD^vPX*"

Entries = list[dict[str, Any]]


def series(entries: Entries, mode: str) -> dict[tuple, list[tuple[int, float]]]:
    """{(processor, tokens, d, experts): [(number of the entry, multiple of the floor)]}."""
    lines = {}
    for number, entry in enumerate(entries):
        for case in entry["ratios"]:
            if case["mode"] == mode:
                key = (entry["machine"]["processor"], *shape_of(case))
                lines.setdefault(key, []).append((number, case["floor"]))
    return lines


def picture(entries: Entries) -> "Figure":
    """One panel per kind of expert and mode; one colour per shape, one marker per machine."""
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys(entry["expert"] for entry in entries))
    shapes = list(dict.fromkeys(shape_of(case) for entry in entries for case in entry["ratios"]))
    machines = list(dict.fromkeys(entry["machine"]["processor"] for entry in entries))
    colours = dict(
        zip(shapes, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shapes))), strict=True)
    )
    markers = dict(zip(machines, itertools.cycle(MARKERS), strict=False))
    size = (13, 4.6 * len(kinds))
    fig, axes = plt.subplots(len(kinds), 2, figsize=size, squeeze=False, layout="constrained")
    for row, kind in zip(axes, kinds, strict=True):
        of_kind = [entry for entry in entries if entry["expert"] == kind]
        for ax, mode in zip(row, MODES, strict=True):
            for (machine, *shape), points in series(of_kind, mode).items():
                style = {"color": colours[tuple(shape)], "marker": markers[machine]}
                ax.plot(*zip(*points, strict=True), **style)
            ax.axhline(1, color=plots.GREY, linewidth=1)
            ax.set_title(f"{kind}, {mode}")
            ax.set_xticks(range(len(of_kind)), [entry["date"] for entry in of_kind], rotation=30)
        row[0].set_ylabel("multiple of the floor")
    lines = [
        plt.Line2D([], [], color=colours[shape], label=", ".join(map(str, shape)))
        for shape in shapes
    ]
    lines += [plt.Line2D([], [], color=plots.GREY, marker=markers[m], label=m) for m in machines]
    fig.legend(handles=lines, loc="outside right upper", title="tokens, d, experts")
    return fig


def shape_of(case: dict[str, Any]) -> tuple[int, int, int]:
    """Tokens, width and experts of a case of an entry."""
    return case["tokens"], case["d"], case["experts"]


def table(entries: Entries) -> str:
    """The entries and the range of their ratios, as Markdown."""
    lines = [
        "| date | expert | processor | BLAS | multiple of the floor | moe_np / dense |",
        "|---|---|---|---|---|---|",
    ]
    for entry in entries:
        machine = entry["machine"]
        floor, dense = (
            f"{min(values):.2f} to {max(values):.2f}"
            for values in ([case[name] for case in entry["ratios"]] for name in ("floor", "dense"))
        )
        cells = (entry["date"], entry["expert"], machine["processor"], machine["blas"])
        lines.append(f"| {' | '.join((*cells, floor, dense))} |")
    return "\n".join(lines)


def make(job: Job) -> str:
    """Draw the recorded runs, and write the section of the report."""
    path = history.default_file()
    entries = history.read(path) if path.exists() else []
    if not entries:
        return "No run of the bench is recorded: `moe-np bench --record` adds one."
    with plots.style():
        job.save(picture(entries), "history")
    return (
        "![multiples of the floor over time](history.png)\n\n"
        "The range of all shapes and both modes; the floor is that of the machine in the minute "
        "of the measurement.\n\n" + table(entries)
    )
