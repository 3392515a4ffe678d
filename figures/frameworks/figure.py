"""The sparse layer in three frameworks: processor time beside ours, where they are installed.

What to see: the time of a step, forward and backward, as a multiple of ours in the same turn. Left
of the line a framework takes less than ours; black is the 95 % interval over the rounds. One that
is not installed has no bar.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.frameworks.experiment import run
from moe_np.experiments.frameworks.report import ratio, report

TITLE = "Frameworks: the sparse layer beside ours"
ORDER = 450
TIMED = True


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    times = result["milliseconds"]
    with plots.style():
        fig, ax = plt.subplots(figsize=(8, 2.8))
        for row, measured in enumerate(times.values()):
            if measured is None:
                ax.text(0.02, row, "not installed", va="center", color=plots.GREY)
            else:
                estimate, low, high = ratio(measured)
                ax.barh(row, estimate, 0.6, color=plots.COLOURS[row])
                if low is not None:
                    ax.plot((low, high), (row, row), color=plots.BLACK, linewidth=1.5)
        ax.axvline(1, color=plots.BLACK, linewidth=1)
        ax.set_yticks(range(len(times)), list(times))
        ax.set_ylim(len(times) - 0.5, -0.5)
        ax.set(xlabel="processor time of a step, as a multiple of ours")
        ax.set_xlim(left=0)
        job.save(fig, "frameworks")
    return "![frameworks](frameworks.png)\n\n" + report(result)
