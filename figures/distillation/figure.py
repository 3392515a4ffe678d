"""Distillation: what the students lose on held-out books, between the dense model and the teacher.

What to see: the two lines are the dense decoder and its teacher; a student between them keeps a
part of the gain. Dots are seeds.
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.distillation.experiment import DENSE, STUDENTS, TEACHER, run
from moe_np.experiments.distillation.report import report

TITLE = "Distillation: what a dense student keeps"
ORDER = 320


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    least = {
        system: [min(r["validation"]) for r in result["runs"] if r["system"] == system]
        for system in (DENSE, TEACHER, *STUDENTS)
    }
    with plots.style():
        fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
        for system, colour in ((DENSE, plots.BLACK), (TEACHER, plots.BLUE)):
            ax.axvline(np.mean(least[system]), color=colour, linewidth=1.2, label=system)
        for row, system in enumerate(STUDENTS):
            losses = least[system]
            ax.plot(losses, np.full(len(losses), row), "o", color=plots.GREY, markersize=4)
            ax.plot(np.mean(losses), row, "|", color=plots.BLACK, markersize=14)
        ax.set_yticks(range(len(STUDENTS)), list(STUDENTS))
        ax.invert_yaxis()
        ax.set(xlabel="least held-out loss, nats per token")
        ax.legend()
        job.save(fig, "distillation")
    return "![distillation](distillation.png)\n\n" + report(result)
