"""Changed experts: the loss by the number of experts removed, and a new domain learnt and the old
one forgotten.

What to see: left, how much later than at random the loss rises when experts are removed by what the
layer loses. Right, a point low and left has learnt the new domain and kept the old one.
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.changing_experts.experiment import LEARNING, SMALLER, run
from moe_np.experiments.changing_experts.report import report

TITLE = "Experts removed, merged and added"
ORDER = 330


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
        for system, colour in zip(SMALLER, plots.COLOURS, strict=False):
            runs = [r["losses"] for r in result["runs"] if r["system"] == system]
            counts = [int(n) for n in runs[0]]
            losses = np.array([list(r.values()) for r in runs])
            label = _WAYS.get(system, system)
            axes[0].plot(counts, losses.mean(axis=0), "o-", color=colour, label=label)
        axes[0].set_xticks(counts)
        axes[0].set(xlabel="experts removed per layer", ylabel="held-out loss, nats per token")
        axes[0].legend()
        for system, colour in zip(LEARNING, plots.COLOURS, strict=False):
            runs = [r for r in result["runs"] if r["system"] == system]
            rise = [r["old"][1] - r["old"][0] for r in runs]
            axes[1].plot(rise, [r["new"][-1] for r in runs], "o", color=colour, label=system)
        axes[1].set(xlabel="rise of the loss on the old domain", ylabel="loss on the new domain")
        axes[1].legend()
        job.save(fig, "changing_experts")
    return "![changing experts](changing_experts.png)\n\n" + report(result)


_WAYS = {"use": "removed by use", "loss": "by reconstruction loss", "random": "at random"}
