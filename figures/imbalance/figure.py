"""Time of an expert-parallel training step against the skew of the load.

What to see: left, the step as measured (points; bars: all seeds) and by the model (lines). With an
even load two ranks take about half the time of one. With a skewed one all work is on one rank, and
two are hardly faster than one; placing the experts by their load helps. Right, what each rank
computes, of the largest number of ranks: the step waits for the highest line.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.imbalance.experiment import run
from moe_np.experiments.imbalance.report import report

TITLE = "A step takes as long as its busiest rank"
ORDER = 186
TIMED = True


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6))
        for (system, rows), colour in zip(result["summary"].items(), plots.COLOURS, strict=False):
            skews = range(len(rows))
            model = [1e3 * seconds for seconds in result["model"][system]]
            has_times = all("measured" in row for row in rows)
            label = system if has_times else f"{system}, model"
            axes[0].plot(skews, model, color=colour, linewidth=1.2, label=label)
            if has_times:
                times = [1e3 * row["measured"] for row in rows]
                below = [1e3 * (row["measured"] - row["low"]) for row in rows]
                up = [1e3 * (row["high"] - row["measured"]) for row in rows]
                axes[0].errorbar(skews, times, [below, up], fmt="o", color=colour, capsize=3)
        axes[0].set(ylabel="ms per step", title="Points: measured; lines: model")
        system, rows = list(result["summary"].items())[-1]
        for rank in range(len(rows[0]["compute"])):
            times = [1e3 * row["compute"][rank] for row in rows]
            colour = plots.COLOURS[rank % len(plots.COLOURS)]
            axes[1].plot(range(len(rows)), times, "o-", color=colour, label=f"rank {rank}")
        axes[1].set(ylabel="ms of computing", title=f"{system}: each rank")
        for ax in axes:
            ax.set_ylim(0, 1.35 * ax.get_ylim()[1])
            ax.legend(loc="upper center", ncols=2)
            ax.set_xticks(range(len(rows)), [f"{row['skew']:g}" for row in rows])
            ax.set_xlabel("skew: added to the logit of the first expert")
        job.save(fig, "imbalance")
    return "![imbalance](imbalance.png)\n\n" + report(result)
