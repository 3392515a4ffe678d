"""Published times of expert parallelism beside the model of cost.

What to see: left, the time of an exchange grows with the ranks and stands still after 64, because
almost all bytes leave the node by then; one latency and the wire explain it. Right, the model over
the published number for all rows; 1 is a perfect model.
"""

from typing import TYPE_CHECKING

from figures import Job
from moe_np import plots
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.published_systems.experiment import run
from moe_np.experiments.published_systems.report import report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Published systems beside the model of cost"
ORDER = 190


def draw(exchange_ax: "Axes", ratio_ax: "Axes", result: Result) -> None:
    """Two panels: the exchanges of DeepEP, and model over published for all rows."""
    rows = result["systems"]["DeepEP"]["rows"]
    colours = {"dispatch": plots.BLUE, "combine": plots.ORANGE}
    for name, colour in colours.items():
        of_name = [row for row in rows if row["what"].startswith(name)]
        ranks = [int(row["what"].split()[1]) for row in of_name]
        exchange_ax.plot(ranks, [row["model"] for row in of_name], color=colour, linewidth=2.5)
        published = [row["published"] for row in of_name]
        exchange_ax.scatter(ranks, published, s=60, color=colour, zorder=3)
        plots.label(exchange_ax, ranks[1], of_name[1]["model"] + 45, name, colour)
    exchange_ax.set(xscale="log", xlabel="ranks", ylabel="microseconds", ylim=(0, 420))
    exchange_ax.set_xticks(ranks, [str(n) for n in ranks])
    exchange_ax.minorticks_off()
    exchange_ax.set_title("DeepEP: published (dots), model (lines)")
    draw_ratios(ratio_ax, result)


def draw_ratios(ax: "Axes", result: Result) -> None:
    """Model over published, one dot per row, one line per system."""
    palette = (plots.BLUE, plots.GREEN, plots.ORANGE, plots.PINK)
    for place, run_of in enumerate(result["systems"].values()):
        counted = [row["model"] / row["published"] for row in run_of["rows"] if row["counted"]]
        free = [row["model"] / row["published"] for row in run_of["rows"] if not row["counted"]]
        colour = palette[place % len(palette)]
        ax.scatter(counted, [place] * len(counted), s=60, color=colour, zorder=3)
        ax.scatter(free, [place] * len(free), s=60, facecolors="none", edgecolors=colour, zorder=3)
    ax.axvline(1, color=plots.GREY, linewidth=1.5)
    ax.set_yticks(range(len(result["systems"])), list(result["systems"]))
    ax.invert_yaxis()
    ax.set(xlabel="model / published", xlim=(0.4, 1.8))
    ax.set_title("filled: the model; open: with a part left out")


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.4))
        draw(*axes, result)
        job.save(fig, "published_systems")
    return "![published systems](published_systems.png)\n\n" + report(result)
