"""Fine-tuning: training and validation loss of dense and sparse, by the number of examples.

What to see: a validation loss (thick) that turns up while the training loss (thin) goes on falling
is overfitting; the question is whether it turns earlier and more for the sparse model, at the
larger batch here, which sees the examples more often. Last panel: what remedies change of the
sparse model's last test loss, at the smaller batch.
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.fine_tuning.experiment import best_settings, run
from moe_np.experiments.fine_tuning.report import report
from moe_np.experiments.fine_tuning.runs import DENSE, SPARSE

TITLE = "Fine-tuning on few examples: dense against sparse"
ORDER = 340


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    batch = max(result["config"]["batches"])
    best = {
        system: best_settings([r for r in result["runs"] if r["system"] == system], batch=batch)
        for system in _SYSTEMS
    }
    sizes = list(best[SPARSE])
    with plots.style():
        panels = len(sizes) + 1
        fig, axes = plt.subplots(1, panels, figsize=(3.4 * panels, 3.6), layout="constrained")
        for ax, size in zip(axes, sizes, strict=False):
            for system, colour in zip(_SYSTEMS, plots.COLOURS, strict=False):
                runs = best[system][size]
                steps = runs[0]["steps"]
                losses = [np.mean([r[name] for r in runs], axis=0) for name in _LOSSES]
                ax.plot(steps, losses[0], color=colour, linewidth=2, label=system)
                ax.plot(steps[1:], losses[1], color=colour, linewidth=0.8)
            ax.set(title=f"{size} examples, batch {batch}", xlabel="update")
        axes[0].set_ylabel("nats per token")
        axes[0].legend()
        remedies = result["differences"]["remedies"]
        for row, value in enumerate(remedies.values()):
            low, high = (value[b] or value["estimate"] for b in ("low", "high"))
            axes[-1].plot([low, high], [row, row], color=plots.GREY)
            axes[-1].plot(value["estimate"], row, "o", color=plots.BLUE, markersize=4)
        axes[-1].axvline(0, color=plots.BLACK, linewidth=0.8)
        axes[-1].set_yticks(range(len(remedies)), list(remedies))
        axes[-1].invert_yaxis()
        axes[-1].set(xlabel="change of the last test loss")
        job.save(fig, "fine_tuning")
    return "![fine-tuning](fine_tuning.png)\n\n" + report(result)


_SYSTEMS = (DENSE, SPARSE)
_LOSSES = ("validation", "training")
