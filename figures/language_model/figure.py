"""Dense against experts on the King James Bible: the held-out loss by tokens and by time.

What to see: left, by tokens, where more experts at the same operations may only help; middle, by
the time of the processor, where they also have to pay for routing. Right, the same on two books
only: the held-out loss (whole lines) turns where the training loss (dotted) goes on falling. A line
is a seed.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.language_model.experiment import run
from moe_np.experiments.language_model.report import report
from moe_np.experiments.language_model.runs import SYSTEMS, TWO_BOOKS

TITLE = "Language models: dense against experts"
ORDER = 158


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    whole = [system for system in SYSTEMS if system not in TWO_BOOKS]
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(17, 4.6))
        for ax, name, scale in ((axes[0], "tokens", 1e-6), (axes[1], "seconds", 1)):
            _curves(ax, result, whole, "validation", name=name, scale=scale)
        _curves(axes[2], result, list(TWO_BOOKS), "validation", name="tokens", scale=1e-6)
        _curves(axes[2], result, list(TWO_BOOKS), "training", "dotted", name="tokens", scale=1e-6)
        axes[0].set(xlabel="million tokens", ylabel="held-out loss, nats per token")
        axes[1].set(xlabel="seconds of the processor", title="the whole text")
        axes[2].set(xlabel="million tokens", title="two books; dotted: training loss")
        axes[1].legend()
        axes[2].legend()
        job.save(fig, "language_model")
    return "![language models](language_model.png)\n\n" + report(result)


def _curves(ax, result, systems, loss, line="solid", *, name, scale):
    for system, colour in zip(systems, plots.COLOURS, strict=False):
        runs = [r for r in result["runs"] if r["system"] == system]
        for number, r in enumerate(runs):
            label = system if number == 0 and line == "solid" else None
            places = [scale * place for place in r[name]]
            ax.plot(places, r[loss], color=colour, linewidth=1.2, linestyle=line, label=label)
