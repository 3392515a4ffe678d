"""Hit rates of caches of experts, on a trained router's choices and on uniform ones.

What to see: left and middle, hits by the number of experts in memory under LRU, LFU and Belady's
rule, which knows the future; the dotted line is the share of the experts in memory. Right, tokens
per second in generation with the same caches, with the files in the system's page cache and with
that dropped before each read.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.offloading.experiment import run
from moe_np.experiments.offloading.report import report
from moe_np.experiments.offloading.runs import POLICIES, TRAINED

TITLE = "Experts on disk: what a cache finds"
ORDER = 182
TIMED = True
LABELS = {"lru": "LRU", "lfu": "LFU", "belady": "Belady's bound"}


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(15, 4.4))
        for ax, (system, ours) in zip(axes, result["summary"].items(), strict=False):
            for policy, colour in zip(POLICIES, plots.COLOURS, strict=False):
                rates = [100 * rate["mean"] for rate in ours["hit_rates"][policy]]
                ax.plot(ours["places"], rates, "o-", color=colour, label=LABELS[policy])
            share = [100 * n / ours["experts"] for n in ours["places"]]
            ax.plot(ours["places"], share, ":", color=plots.GREY, label="share in memory")
            ax.set(xlabel="experts in memory", ylabel="percent hits", title=system)
            ax.set_ylim(0, 100)
            ax.legend(fontsize=10)
        speed = result["summary"][TRAINED]["speed"]
        rate = [row["tokens_per_second"]["mean"] for row in speed]
        places = [row["places"] for row in speed]
        axes[2].plot(places, rate, "o-", color=plots.BLUE, label="from the page cache")
        if speed[0]["cold"] is not None:
            cold = [row["cold"]["mean"] for row in speed]
            axes[2].plot(places, cold, "o-", color=plots.COLOURS[1], label="cold")
        axes[2].legend(fontsize=10)
        axes[2].set(xlabel="experts in memory", ylabel="tokens per second", title="Generation, LRU")
        axes[2].set_ylim(bottom=0)
        job.save(fig, "offloading")
    return "![offloading](offloading.png)\n\n" + report(result)
