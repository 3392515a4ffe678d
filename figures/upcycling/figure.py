"""Upcycling: the held-out loss by tokens and by time, the sunk cost included.

What to see: the upcycled model begins where the dense one ends. Left, by tokens, the mixture from
initialisation has to pass it; right, by the time of the processor, it has to pay for its experts
from the beginning. Thin lines are seeds.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.upcycling.experiment import SYSTEMS, run
from moe_np.experiments.upcycling.report import report

TITLE = "Upcycling: a dense decoder goes on as a mixture"
ORDER = 310


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6), sharey=True, layout="constrained")
        for system, colour in zip(SYSTEMS, plots.COLOURS, strict=False):
            runs = [r for r in result["runs"] if r["system"] == system]
            for number, r in enumerate(runs):
                label = system if number == 0 else None
                tokens = [1e-6 * step * r["tokens_per_step"] for step in r["steps"]]
                style = {"color": colour, "linewidth": 1}
                axes[0].plot(tokens, r["validation"], label=label, **style)
                axes[1].plot(r["seconds"], r["validation"], **style)
        axes[0].set(xlabel="million tokens", ylabel="held-out loss, nats per token")
        axes[1].set(xlabel="seconds of the processor")
        axes[0].legend()
        job.save(fig, "upcycling")
    return "![upcycling](upcycling.png)\n\n" + report(result)
