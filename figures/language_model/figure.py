"""Dense against experts on the King James Bible: the held-out loss by tokens and by time.

What to see: above, by tokens, where more experts at the same operations may only help, and by the
time of the processor, where they also have to pay for routing. Below, at twice the width, dense
against 8 experts; and on two books only, where the held-out loss (whole lines) turns while the
training loss (dotted) goes on falling. A line is a seed.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.language_model.experiment import run
from moe_np.experiments.language_model.report import report
from moe_np.experiments.language_model.runs import SYSTEMS, TWO_BOOKS, WIDE

TITLE = "Language models: dense against experts"
ORDER = 158


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    whole = [system for system in SYSTEMS if system not in TWO_BOOKS and system not in WIDE]
    with plots.style():
        fig, axes = plt.subplots(2, 2, figsize=(13, 9))
        tokens, seconds, wide, few = axes.ravel()
        _curves(tokens, result, whole, "validation", name="tokens", scale=1e-6)
        _curves(seconds, result, whole, "validation", name="seconds", scale=1)
        _curves(wide, result, list(WIDE), "validation", name="tokens", scale=1e-6)
        _curves(few, result, list(TWO_BOOKS), "validation", name="tokens", scale=1e-6)
        _curves(few, result, list(TWO_BOOKS), "training", "dotted", name="tokens", scale=1e-6)
        for ax in (tokens, wide, few):
            ax.set(xlabel="million tokens", ylabel="held-out loss, nats per token")
        tokens.set(title="the whole text")
        seconds.set(xlabel="seconds of the processor", title="the whole text")
        wide.set(title="the whole text, width 128")
        few.set(title="two books; dotted: training loss")
        for ax in (seconds, wide, few):
            ax.legend()
        job.save(fig, "language_model")
    return "![language models](language_model.png)\n\n" + report(result)


def _curves(ax, result, systems, loss, line="solid", *, name, scale):
    for system, colour in zip(systems, plots.COLOURS, strict=False):
        runs = [r for r in result["runs"] if r["system"] == system]
        for number, r in enumerate(runs):
            label = system if number == 0 and line == "solid" else None
            places = [scale * place for place in r[name]]
            ax.plot(places, r[loss], color=colour, linewidth=1.2, linestyle=line, label=label)
