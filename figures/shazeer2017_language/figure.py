"""Perplexity against the number of experts at equal operations, ours and that of Shazeer et al.

What to see: left, the loss of the test books, a dot per seed; horizontal lines are the models
without experts. Right, perplexity as a multiple of that of one wide network (MoE-1-Wide), beside
the paper's Table 7: there the line goes on falling to thousands of experts.
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.shazeer2017_language.experiment import run
from moe_np.experiments.shazeer2017_language.report import report
from moe_np.experiments.shazeer2017_language.runs import (
    EXPERTS,
    FLAT,
    FOUR_LSTM,
    HIERARCHICAL,
    LSTM,
    PAPER,
    WIDE,
)

TITLE = "Shazeer et al. 2017: perplexity by the number of experts"
ORDER = 160


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    losses = {
        system: np.array([r["test"]["loss"] for r in result["runs"] if r["system"] == system])
        for system in result["summary"]
    }
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6))
        _losses(axes[0], losses)
        _ratios(axes[1], losses)
        job.save(fig, "shazeer2017_language")
    return "![perplexity by experts](shazeer2017_language.png)\n\n" + report(result)


def _losses(ax, losses):
    for system, colour in zip((LSTM, FOUR_LSTM, WIDE), plots.COLOURS[1:], strict=False):
        ax.axhline(losses[system].mean(), color=colour, linestyle="--", label=system)
    experts = list(FLAT.values())
    ax.plot(experts, [losses[s].mean() for s in FLAT], color=plots.BLUE, label="flat mixtures")
    for system, E in EXPERTS.items():
        flat = system != HIERARCHICAL
        ax.plot(
            np.full(len(losses[system]), E),
            losses[system],
            "o" if flat else "^",
            color=plots.BLUE if flat else plots.BLACK,
            label=None if flat else "two levels",
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(experts, [str(E) for E in experts])
    ax.set(xlabel="experts, of which 4 are used", ylabel="test loss, nats per token")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)


def _ratios(ax, losses):
    ours = [np.exp(losses[system].mean() - losses[WIDE].mean()) for system in FLAT]
    ax.plot(list(FLAT.values()), ours, "o-", color=plots.BLUE, label="here")
    table = PAPER["table7"]
    wide = table["MoE-1-Wide"][0]
    for marker, label, names in (
        ("o-", "paper, flat", ("MoE-4", "MoE-32", "MoE-256")),
        ("^--", "paper, two levels", ("MoE-256-h", "MoE-1024-h", "MoE-4096-h")),
    ):
        experts = [int(name.split("-")[1]) for name in names]
        ratios = [table[name][0] / wide for name in names]
        ax.plot(experts, ratios, marker, color=plots.GREY, label=label)
    ax.axhline(1, color=plots.BLACK, linewidth=0.8)
    ax.set_xscale("log", base=2)
    ticks = (4, 32, 256, 1024, 4096)
    ax.set_xticks(ticks, [str(E) for E in ticks])
    ax.set(xlabel="experts", ylabel="perplexity / that of MoE-1-Wide")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
