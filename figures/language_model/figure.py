"""Dense against experts on the King James Bible: the held-out loss by tokens and by time.

What to see: left, by tokens, where more experts at the same operations may only help; right, by the
time of the processor, where they also have to pay for routing. Thin lines are seeds.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.language_model.experiment import run
from moe_np.experiments.language_model.report import report
from moe_np.experiments.language_model.runs import SYSTEMS

TITLE = "Language models: dense against experts"
ORDER = 158


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6), sharey=True)
        for ax, name, scale in ((axes[0], "tokens", 1e-6), (axes[1], "seconds", 1)):
            for system, colour in zip(SYSTEMS, plots.COLOURS, strict=False):
                runs = [r for r in result["runs"] if r["system"] == system]
                for number, r in enumerate(runs):
                    label = system if number == 0 else None
                    places = [scale * place for place in r[name]]
                    ax.plot(places, r["validation"], color=colour, linewidth=1.2, label=label)
        axes[0].set(xlabel="million tokens", ylabel="held-out loss, nats per token")
        axes[1].set(xlabel="seconds of the processor")
        axes[1].legend()
        job.save(fig, "language_model")
    return "![language models](language_model.png)\n\n" + report(result)
