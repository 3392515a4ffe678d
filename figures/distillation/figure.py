"""Distillation: what the students lose on held-out books, between the dense model and the teacher.

What to see: solid lines are the dense decoder and its teacher, the frame of the first student;
dashed ones are both after twice as many updates, the frame of the students that begin with weights
of the teacher. A student between the two lines of its frame keeps a part of the gain. Dots are
seeds.
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.distillation.experiment import (
    DENSE,
    DENSE_LONG,
    STUDENTS,
    SYSTEMS,
    TEACHER,
    TEACHER_LONG,
    run,
)
from moe_np.experiments.distillation.report import report

TITLE = "Distillation: what a dense student keeps"
ORDER = 320


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    least = {
        system: [min(r["validation"]) for r in result["runs"] if r["system"] == system]
        for system in SYSTEMS
    }
    with plots.style():
        fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
        for system, colour, line in _FRAMES:
            mean = np.mean(least[system])
            ax.axvline(mean, color=colour, linestyle=line, linewidth=1.2, label=system)
        for row, system in enumerate(STUDENTS):
            losses = least[system]
            ax.plot(losses, np.full(len(losses), row), "o", color=plots.GREY, markersize=4)
            ax.plot(np.mean(losses), row, "|", color=plots.BLACK, markersize=14)
        ax.set_yticks(range(len(STUDENTS)), list(STUDENTS))
        ax.invert_yaxis()
        ax.set(xlabel="least held-out loss, nats per token")
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
        job.save(fig, "distillation")
    return "![distillation](distillation.png)\n\n" + report(result)


_FRAMES = (
    (DENSE, plots.BLACK, "-"),
    (TEACHER, plots.BLUE, "-"),
    (DENSE_LONG, plots.BLACK, "--"),
    (TEACHER_LONG, plots.BLUE, "--"),
)
