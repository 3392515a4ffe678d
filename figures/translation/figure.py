"""English verses into Spanish: with experts against dense, for LSTMs and for the transformer.

What to see: left, the loss of the validation books in training, a line per seed; a model with
experts and its dense counterpart have the same operations per token. Right, experts less dense on
the test books, a dot per seed: below 0 the experts are better.
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.translation.experiment import run
from moe_np.experiments.translation.report import report
from moe_np.experiments.translation.runs import COUNTERPARTS, SYSTEMS

TITLE = "Translation: English verses into Spanish"
ORDER = 165


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6), width_ratios=(5, 4))
        _curves(axes[0], result["runs"])
        _differences(axes[1], result)
        job.save(fig, "translation")
    return "![translation](translation.png)\n\n" + report(result)


def _curves(ax, runs):
    for system, colour in zip(SYSTEMS, plots.COLOURS, strict=False):
        for number, r in enumerate([r for r in runs if r["system"] == system]):
            label = system if number == 0 else None
            ax.plot(r["steps"], r["validation"], color=colour, linewidth=1.2, label=label)
    ax.set(xlabel="updates", ylabel="held-out loss, nats per token")
    ax.legend()


def _differences(ax, result):
    names = list(COUNTERPARTS)
    for place, system in enumerate(names):
        losses = [
            np.array([r["test_loss"] for r in result["runs"] if r["system"] == name])
            for name in (system, COUNTERPARTS[system])
        ]
        differences = losses[0] - losses[1]
        colour = plots.COLOURS[SYSTEMS.index(system)]
        ax.plot(np.full(len(differences), place), differences, "o", color=colour)
        ours = result["against_dense"][system]["test_loss"]
        if ours["low"] is not None:
            ax.vlines(place + 0.1, ours["low"], ours["high"], color=colour)
    ax.axhline(0, color=plots.BLACK, linewidth=0.8)
    labels = [f"{name}\n− {COUNTERPARTS[name]}" for name in names]
    ax.set_xticks(range(len(names)), labels)
    ax.set(xlim=(-0.6, len(names) - 0.4), ylabel="test loss, difference in nats per token")
