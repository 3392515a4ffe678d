"""Upcycling: the held-out loss by tokens and by time, the sunk cost included.

What to see: the upcycled models begin where the dense one ends (left, all systems), and end lower
than the dense one that goes on (middle, the same from there on). The mixture from initialisation
has to pass them by tokens (left and middle) and by the time of the processor (right), in which it
pays for its experts from the beginning. Lines are means over the seeds.
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.upcycling.experiment import DENSE, SYSTEMS, run
from moe_np.experiments.upcycling.report import report

TITLE = "Upcycling: a dense decoder goes on as a mixture"
ORDER = 310


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    curves = {system: _curve(result["runs"], system) for system in SYSTEMS}
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
        for (system, (tokens, seconds, loss)), colour in zip(
            curves.items(), plots.COLOURS, strict=False
        ):
            style = {"color": colour, "label": system, "linewidth": 1.6}
            for ax, places in zip(axes, (tokens, tokens, seconds), strict=True):
                ax.plot(places, loss, **style)
        tokens, seconds, loss = curves[DENSE]
        lowest = min(curve[2][-1] for curve in curves.values())
        for ax, places in zip(axes[1:], (tokens, seconds), strict=True):
            ax.set_xlim(0.9 * places[0], None)
            ax.set_ylim(lowest - 0.05, loss.max() + 0.05)
        for ax, label in zip(axes, ("million tokens", "million tokens", _SECONDS), strict=True):
            ax.set(xlabel=label, ylabel="held-out loss, nats per token")
        axes[0].legend()
        job.save(fig, "upcycling")
    return "![upcycling](upcycling.png)\n\n" + report(result)


def _curve(runs, system):
    """(million tokens, seconds, loss), each the mean over the seeds of one system."""
    chosen = [run for run in runs if run["system"] == system]
    tokens = 1e-6 * np.array(chosen[0]["steps"]) * chosen[0]["tokens_per_step"]
    seconds, loss = (np.mean([run[k] for run in chosen], axis=0) for k in ("seconds", "validation"))
    return tokens, seconds, loss


_SECONDS = "seconds of the processor"
