"""Trained experts in few bits: memory against loss.

What to see: left, the loss that rounding the experts adds, by their memory over float32; smaller
groups need more memory at the same bits. Right, experts alone, routers alone, and both, at the
largest group: routers are a small part of the memory, and rounding them gives tokens other experts.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.quantised.experiment import run
from moe_np.experiments.quantised.report import report
from moe_np.experiments.quantised.runs import EXPERTS, PARTS

TITLE = "Trained experts in few bits: memory against loss"
ORDER = 181


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    groups = result["config"]["groups"]
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6))
        for group, colour in zip(groups, plots.COLOURS, strict=False):
            rows = _rows(result, EXPERTS, group)
            added = [row["added"]["mean"] for row in rows]
            label = f"groups of {group}"
            axes[0].plot([r["share"] for r in rows], added, "o-", color=colour, label=label)
        axes[0].axhline(0, color=plots.GREY, linewidth=1)
        axes[0].set(xlabel="experts' memory / float32", ylabel="added loss, nats per token")
        axes[0].legend()
        for number, (part, colour) in enumerate(zip(PARTS, plots.COLOURS, strict=False)):
            rows = _rows(result, part, groups[0])
            places = [i + 0.27 * (number - 1) for i in range(len(rows))]
            axes[1].bar(places, [r["added"]["mean"] for r in rows], 0.25, color=colour, label=part)
        axes[1].set_xticks(range(len(rows)), [row["bits"] for row in rows])
        axes[1].axhline(0, color=plots.GREY, linewidth=1)
        axes[1].set(xlabel="bits", title="What is rounded")
        axes[1].legend()
        job.save(fig, "quantised")
    return "![quantised](quantised.png)\n\n" + report(result)


def _rows(result, part, group):
    return [r for r in result["summary"] if r["part"] == part and r["group"] == group]
