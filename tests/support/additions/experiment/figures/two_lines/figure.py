"""One line and two lines on y = |x|.

What to see: every run of two lines has a smaller error than any run of one line.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments import two_lines

TITLE = "Two lines: the error of a mixture on y = |x|"
ORDER = 199


def specs(job: Job) -> tuple:
    """(run_one, the runs of both systems)."""
    return two_lines.run_one, two_lines.specs(quick=job.quick)


def make(job: Job) -> str:
    """Run the experiment and draw its errors; return its section of the report."""
    import matplotlib.pyplot as plt

    result = two_lines.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, ax = plt.subplots(figsize=(6, 2.5))
        for y, runs in enumerate(result["systems"].values()):
            ax.scatter([run["error"] for run in runs], [y] * len(runs), color=plots.BLUE)
        ax.set_yticks(range(len(result["systems"])), result["systems"])
        ax.set_xlabel("root mean square error")
        job.save(fig, "two_lines")
    return f"![errors](two_lines.png)\n\n{two_lines.report(result)}"
