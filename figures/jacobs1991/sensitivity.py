"""Which claims of Jacobs et al. (1991) hold if the unstated choices are made otherwise: start
range, coding, split.

What to see: that mixtures are faster holds nearly everywhere. That 12 hidden units are slower than
6 holds for small start weights only. One-hot targets are another experiment: one softmax expert
solves the task alone.
"""

import itertools

from moe_np import plots
from moe_np.experiments.jacobs1991 import report, sensitivity

TITLE = "Jacobs et al. 1991: which claims survive other choices"
ORDER = 25
SHADES = {"holds": "#0072B2", "direction": "#A9CFE6", "fails": "#F0B38A"}
HEADS = ("mixtures\nfaster", "8 faster\nthan 4", "12 slower\nthan 6")
CODINGS = {
    "IY+AH": "[i] and [ʌ] are 1",
    "IY+AA": "[i] and [ɑ] are 1",
    "IY+IH": "[i] and [ɪ] are 1",
    "one-hot": "one-hot, softmax",
}


def draw(ax, results):
    """A row for each coding and split, a block of three signs for each start range."""
    rows = list(dict.fromkeys((r["coding"], r["split"]) for r in results))
    spreads = sorted({r["spread"] for r in results})
    for r in results:
        y, left = rows.index((r["coding"], r["split"])), 3.4 * spreads.index(r["spread"])
        for i, verdict in enumerate(r["claims"].values()):
            ax.add_patch(plots.tile(left + i, y, SHADES[verdict]))
            colour = "white" if verdict == "holds" else plots.BLACK
            ax.text(
                left + i,
                y,
                report.SIGNS[verdict],
                ha="center",
                va="center",
                color=colour,
                size=20,
            )
    for y, j in itertools.product(range(len(rows)), range(len(spreads))):
        if (*rows[y], spreads[j]) not in {(r["coding"], r["split"], r["spread"]) for r in results}:
            ax.text(3.4 * j + 1, y, "not run", ha="center", va="center", color=plots.GREY, size=12)
    for j, spread in enumerate(spreads):
        ax.text(3.4 * j + 1, -1.75, f"start in ±{spread:g}", ha="center", size=14, weight="bold")
        for i, head in enumerate(HEADS):
            ax.text(3.4 * j + i, -0.62, head, ha="center", va="bottom", size=10)
    ax.set_yticks(range(len(rows)), [f"{CODINGS[c]}\n{split}" for c, split in rows], size=11)
    ax.set(xlim=(-0.6, 3.4 * len(spreads) - 0.8), ylim=(len(rows) - 0.4, -2.1), aspect="equal")
    ax.tick_params(length=0)
    ax.set_xticks([])
    for side in ax.spines.values():
        side.set_visible(False)


def make(job):
    import matplotlib.pyplot as plt

    results = sensitivity.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, ax = plt.subplots(figsize=(13, 8) if not job.quick else (8, 4))
        draw(ax, results)
        job.save(fig, "jacobs1991_sensitivity")
    found = {
        "cells": results,
        "quick": job.quick,
        "one_softmax_expert": sensitivity.one_softmax_expert(sweep=job.sweep, quick=job.quick),
    }
    return "![claims](jacobs1991_sensitivity.png)\n\n" + report.sensitivity_report(found)
