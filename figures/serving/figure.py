"""Latency against load under continuous batching, sparse and dense.

What to see: the median latency (lines) and the 99th percentile (dotted) of each system by the load,
left with Poisson arrivals, middle in bursts of the same mean rate. Right, tokens per second. The
sparse system should lie between the dense ones of equal operations and of equal memory, and fall
behind the former where a batch begins to use all experts; the dense one of equal quality is the
fair comparison.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.serving.experiment import run
from moe_np.experiments.serving.report import report
from moe_np.experiments.serving.runs import ARRIVALS, POISSON

TITLE = "Serving: latency against load"
ORDER = 183
TIMED = True


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(15, 4.4))
        for (system, ours), colour in zip(result["summary"].items(), plots.COLOURS, strict=False):
            for ax, kind in zip(axes, ARRIVALS, strict=False):
                rows = [row for row in ours if row["arrivals"] == kind]
                loads = [row["load"] for row in rows]
                median = [row["p50"]["mean"] for row in rows]
                ax.loglog(loads, median, "o-", color=colour)
                ax.loglog(loads, [row["p99"]["mean"] for row in rows], ":", color=colour)
                ax.set(xlabel="load", ylabel="latency, seconds", title=kind)
            rows = [row for row in ours if row["arrivals"] == POISSON]
            speeds = [row["throughput"]["mean"] for row in rows]
            axes[2].loglog(loads, speeds, "o-", color=colour, label=system)
        axes[2].set(xlabel="load", ylabel="tokens per second", title=f"throughput, {POISSON}")
        axes[2].legend(fontsize=10, loc="lower right")
        for ax in axes:
            ax.set_xticks(loads, [f"{load:g}" for load in loads])
            ax.set_xticks([], minor=True)
        job.save(fig, "serving")
    return "![serving](serving.png)\n\n" + report(result)
