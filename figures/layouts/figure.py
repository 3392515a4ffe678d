"""Experts in every layer, every other, or one half of them; and another initial scale.

What to see: left, which layout has the lowest held-out loss at equal parameters and operations, and
whether the small initial scale helps at the beginning; thin lines are seeds. Right, how many tokens
get other experts when a trained router is rounded to bfloat16, and when its inputs alone are.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.layouts.experiment import run
from moe_np.experiments.layouts.report import report
from moe_np.experiments.layouts.runs import EVERY, SYSTEMS

TITLE = "Layouts: which layers have experts, and how they begin"
ORDER = 175
WAYS = {"selective": "inputs in bfloat16", "bfloat16": "router in bfloat16"}


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6), width_ratios=(3, 2))
        for system, colour in zip(SYSTEMS, plots.COLOURS, strict=False):
            runs = [r for r in result["runs"] if r["system"] == system]
            for number, r in enumerate(runs):
                label = system if number == 0 else None
                axes[0].plot(r["steps"], r["validation"], color=colour, linewidth=1.2, label=label)
        axes[0].set(xlabel="update", ylabel="held-out loss, nats per token")
        axes[0].legend(title=f"{len(result['seeds'])} seeds each")
        rounded = result["summary"][EVERY]["rounded"]
        for number, (way, label) in enumerate(WAYS.items()):
            places = [layer + 0.38 * (number - 0.5) for layer in range(len(rounded[way]))]
            percent = [100 * layer["sets"]["mean"] for layer in rounded[way]]
            axes[1].bar(places, percent, 0.36, color=plots.COLOURS[number], label=label)
        axes[1].set(xticks=range(len(places)), xlabel="layer", ylabel="percent of the tokens")
        axes[1].set_title("Tokens with other experts")
        axes[1].margins(y=0.3)  # room for the legend above the bars
        axes[1].legend(loc="upper left")
        job.save(fig, "layouts")
    return "![layouts](layouts.png)\n\n" + report(result)
