"""Generalisation: the interval of every case of every claim, beside the difference that matters.

What to see: a claim holds in a case where the whole interval lies beyond the dashed line, on the
shaded side. The two controls, in grey, show whether a panel can tell anything: one has to lie in
the shade, and the other outside.
"""

import textwrap

from figures import Job
from moe_np import plots
from moe_np.experiments.common.controlled_claims import CASE
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED
from moe_np.experiments.generalisation.article_claims import CLAIMS
from moe_np.experiments.generalisation.experiment import run
from moe_np.experiments.generalisation.report import report

TITLE = "Do mixtures generalise? Eight claims on new data"
ORDER = 195
COLOURS = {  # of the verdict on a case
    HOLDS: plots.BLUE,
    NOT_SUPPORTED: plots.ORANGE,
    CANNOT_BE_TOLD: plots.BLACK,
}
CONTROL = plots.GREY


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(4, 2, figsize=(19, 22), layout="constrained")
        for ax, (name, answer) in zip(axes.flat, result["claims"].items(), strict=True):
            panel(ax, CLAIMS[name], answer)
        handles = [plt.Line2D([], [], marker="o", color=c, label=v) for v, c in COLOURS.items()]
        handles.append(plt.Line2D([], [], marker="s", color=CONTROL, label="a control"))
        fig.legend(handles=handles, loc="outside lower center", ncols=4)
        job.save(fig, "generalisation")
    return "![generalisation](generalisation.png)\n\n" + report(result)


def panel(ax, claim, answer) -> None:
    """One claim: an interval per case, the shade where it holds."""
    decisions = answer["decisions"]
    for row, decision in enumerate(decisions):
        is_case = decision["role"] == CASE
        colour = COLOURS[decision["verdict"]] if is_case else CONTROL
        if decision["low"] is not None:
            ax.plot([decision["low"], decision["high"]], [row, row], color=colour, lw=2)
        ax.plot(decision["estimate"], row, "o" if is_case else "s", color=colour)
    labels = [d["case"] if d["role"] == CASE else f"{d['role']}: {d['case']}" for d in decisions]
    ax.set_yticks(range(len(labels)), labels, fontsize=9)
    ax.tick_params(axis="x", labelsize=10)
    ax.invert_yaxis()
    greater = claim.criterion.direction == "greater"
    bound = claim.criterion.smallest if greater else -claim.criterion.smallest
    low, high = ax.get_xlim()
    low, high = min(low, -1.5 * abs(bound)), max(high, 1.5 * abs(bound))
    ax.axvspan(*((bound, high) if greater else (low, bound)), color=plots.BLUE, alpha=0.08)
    ax.axvline(bound, color="0.3", ls="--", lw=1)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_xlim(low, high)
    ax.set_xlabel("\n".join(textwrap.wrap(claim.criterion.measure, 62)), fontsize=9)
    ax.set_title(f"{claim.title}\n{answer['verdict']}", fontsize=11)
