"""What experts and router learn (appendix of Chen et al. 2022): inner products with the signals v_k
and the centres c_k.

What to see: a cubic expert in use turns towards the signal of one cluster, and the router's vector
of the same expert towards the centre of the same cluster. Linear experts take up several signals at
once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import chen2022
from moe_np.experiments.chen2022.runs import quick_config, spec_of
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Chen et al. 2022, appendix: what the experts and the router turn to"
ORDER = 40
SEED = 0
EVERY = 10  # epochs between two records
KINDS = {"cubic": "moe_nonlinear", "linear": "moe_linear"}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK)
ROWS = {
    "expert_feature": r"expert: $\max_j |w_{mj} \cdot v_k|$",
    "router_center": r"router: $|\theta_m \cdot c_k|$",
}


def picture(record: Sequence[Result], kind: str) -> "Figure":
    """A column per expert, experts above and router below; a line per cluster."""
    import matplotlib.pyplot as plt

    epoch = [entry["epoch"] for entry in record]
    n_experts = len(record[0]["accuracy"])
    fig, axes = plt.subplots(2, n_experts, figsize=(16, 5.6), sharex=True, sharey="row")
    for row, (name, text) in zip(axes, ROWS.items(), strict=True):
        values = np.array([entry[name] for entry in record])  # (times, experts, clusters)
        for m, ax in enumerate(row):
            draw(ax, epoch, values[:, m], values.max())
        row[0].set_ylabel(text)
    for m, ax in enumerate(axes[0]):
        ax.set_title(f"expert {m + 1}: {100 * record[-1]['load'][m]:.0f} %")
    fig.supxlabel("pass", fontsize=13)
    fig.suptitle(f"{kind} experts", fontsize=16, weight="bold", x=0.01, ha="left")
    return fig


def draw(
    ax: "Axes", epoch: list[int], values: Annotated[np.ndarray, "times, clusters"], largest: float
) -> None:
    """The inner products of one expert; a cluster that is far before the others is named."""
    for k, colour in enumerate(COLOURS):
        ax.plot(epoch, values[:, k], color=colour, linewidth=2.2)
    *_, second, first = values[-1].argsort()
    if values[-1, first] > max(0.25 * largest, 1.5 * values[-1, second]):
        place = (epoch[-1] * 0.98, values[-1, first] + 0.05 * largest)
        style = {"size": 13, "ha": "right", "weight": "bold"}
        plots.label(ax, *place, f"cluster {first + 1}", COLOURS[first], **style)
    ax.set_ylim(0, 1.12 * largest)
    ax.set_xticks([0, epoch[-1] // 100 * 100])


def accuracy_table(record: Sequence[Result]) -> str:
    """The accuracy of every expert on every cluster, before and after training, as Markdown."""
    before, after = (np.array(record[i]["accuracy"]) for i in (0, -1))
    head = ("expert", *(f"cluster {k + 1}" for k in range(before.shape[1])))
    rows = []
    for m in range(len(before)):
        pairs = zip(before[m], after[m], strict=True)
        rows.append((m + 1, *(f"{a:.0f} → {b:.0f}" for a, b in pairs)))
    return markdown_table(head, rows)


def specs(job: Job) -> tuple:
    """(run_one, one recorded run of each kind)."""
    config = quick_config(chen2022.Config()) if job.quick else chen2022.Config()
    models = KINDS.values()
    return chen2022.run_one, [spec_of(config, m, 1, "code", SEED, record=EVERY) for m in models]


def make(job: Job) -> str:
    """Run both kinds and draw a picture of each; return the section of the report."""
    results = job.sweep.map(*specs(job), desc="chen2022 specialisation")
    parts = [
        f"Setting 1, variant `code`, seed {SEED}, one run of each kind; beside each name the "
        "expert's share of the training samples at the end."
    ]
    for kind, run in zip(KINDS, results, strict=True):
        with plots.style():
            job.save(picture(run["record"], kind), f"chen2022_specialisation_{kind}")
        parts += [
            f"![{kind} experts](chen2022_specialisation_{kind}.png)",
            f"{kind.capitalize()} experts: {run['accuracy']:.2f} % of the test samples right, "
            f"dispatch entropy {run['entropy']:.3f}. Percent of the test samples of each cluster "
            "that each expert alone gets right, before → after training:",
            accuracy_table(run["record"]),
        ]
    return "\n\n".join(parts)
