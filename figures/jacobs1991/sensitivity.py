"""Which claims of Jacobs et al. (1991) hold under other choices of what the paper leaves open.

The choices are the range of the initial weights, the target coding and the split. What to see: that
mixtures are faster holds nearly everywhere. That 12 hidden units are slower than 6 holds for small
initial weights only. One-hot targets are another experiment: one softmax expert solves the task
alone.
"""

import itertools
from typing import TYPE_CHECKING

from figures import Job
from moe_np import plots
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.jacobs1991 import sensitivity
from moe_np.experiments.jacobs1991.report import SIGNS, sensitivity_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Jacobs et al. 1991: which claims survive other choices"
ORDER = 25
SHADES = {"holds": "#0072B2", "direction": "#A9CFE6", "fails": "#F0B38A"}
CLAIMS = ("mixtures\nfaster", "8 faster\nthan 4", "12 slower\nthan 6")
WIDTH = 3.4  # of a block of three signs
CODINGS = {
    "IY+AH": "[i] and [ʌ] are 1",
    "IY+AA": "[i] and [ɑ] are 1",
    "IY+IH": "[i] and [ɪ] are 1",
    "one-hot": "one-hot, softmax",
}


def draw(ax: "Axes", cells: list[Result]) -> None:
    """A row per coding and split, a block of three signs per range of the initial weights."""
    rows = list(dict.fromkeys((cell["coding"], cell["split"]) for cell in cells))
    ranges = sorted({cell["spread"] for cell in cells})
    for cell in cells:
        y = rows.index((cell["coding"], cell["split"]))
        left = WIDTH * ranges.index(cell["spread"])
        for i, verdict in enumerate(cell["claims"].values()):
            ax.add_patch(plots.tile(left + i, y, SHADES[verdict]))
            colour = "white" if verdict == "holds" else plots.BLACK
            text = {"ha": "center", "va": "center", "color": colour, "size": 20}
            ax.text(left + i, y, SIGNS[verdict], **text)
    made = {(cell["coding"], cell["split"], cell["spread"]) for cell in cells}
    text = {"ha": "center", "va": "center", "color": plots.GREY, "size": 12}
    for (y, row), (j, half_width) in itertools.product(enumerate(rows), enumerate(ranges)):
        if (*row, half_width) not in made:
            ax.text(WIDTH * j + 1, y, "not run", **text)
    _headings(ax, rows, ranges)


def _headings(ax, rows, ranges):
    bold = {"ha": "center", "size": 14, "weight": "bold"}
    for j, half_width in enumerate(ranges):
        ax.text(WIDTH * j + 1, -1.75, f"weights in ±{half_width:g}", **bold)
        for i, claim in enumerate(CLAIMS):
            ax.text(WIDTH * j + i, -0.62, claim, ha="center", va="bottom", size=10)
    names = [f"{CODINGS[coding]}\n{split}" for coding, split in rows]
    ax.set_yticks(range(len(rows)), names, size=11)
    ax.set(xlim=(-0.6, WIDTH * len(ranges) - 0.8), ylim=(len(rows) - 0.4, -2.1), aspect="equal")
    ax.tick_params(length=0)
    ax.set_xticks([])
    for side in ax.spines.values():
        side.set_visible(False)


def make(job: Job) -> str:
    """Run the cells and draw the table; return its section of the report."""
    import matplotlib.pyplot as plt

    cells = sensitivity.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, ax = plt.subplots(figsize=(13, 8) if not job.quick else (8, 4))
        draw(ax, cells)
        job.save(fig, "jacobs1991_sensitivity")
    one_expert = sensitivity.one_softmax_expert(sweep=job.sweep, quick=job.quick)
    results = {"cells": cells, "quick": job.quick, "one_softmax_expert": one_expert}
    return "![claims](jacobs1991_sensitivity.png)\n\n" + sensitivity_report(results)
