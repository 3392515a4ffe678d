"""What experts and router learn (appendix of Chen et al. 2022): inner products with signals v_k and
centres c_k.

What to see: a cubic expert in use turns towards the signal of one cluster, and the router's vector
of the same expert towards the centre of that very cluster. Linear experts take up several signals
at once.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments import chen2022
from moe_np.experiments.chen2022 import runs

TITLE = "Chen et al. 2022, appendix: what the experts and the router turn to"
ORDER = 40
SEED, EVERY = 0, 10
KINDS = {"cubic": "moe_nonlinear", "linear": "moe_linear"}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK)
ROWS = {
    "expert_feature": r"expert: $\max_j |w_{mj} \cdot v_k|$",
    "router_center": r"router: $|\theta_m \cdot c_k|$",
}


def picture(record, kind):
    """A column an expert, experts above and router below, a line a cluster; the winner is named at
    its end.
    """
    import matplotlib.pyplot as plt

    epoch = [r["epoch"] for r in record]
    experts = len(record[0]["accuracy"])
    fig, axes = plt.subplots(2, experts, figsize=(16, 5.6), sharex=True, sharey="row")
    for row, (name, text) in zip(axes, ROWS.items(), strict=True):
        values = np.array([r[name] for r in record])  # (times, experts, clusters)
        for m, ax in enumerate(row):
            for k, colour in enumerate(COLOURS):
                ax.plot(epoch, values[:, m, k], color=colour, linewidth=2.2)
            *_, second, top = values[-1, m].argsort()
            if values[-1, m, top] > max(0.25 * values.max(), 1.5 * values[-1, m, second]):
                plots.label(
                    ax,
                    epoch[-1] * 0.98,
                    values[-1, m, top] + 0.05 * values.max(),
                    f"cluster {top + 1}",
                    COLOURS[top],
                    size=13,
                    ha="right",
                    weight="bold",
                )
            ax.set_ylim(0, 1.12 * values.max())
            ax.set_xticks([0, epoch[-1] // 100 * 100])
        row[0].set_ylabel(text)
    for m, ax in enumerate(axes[0]):
        ax.set_title(f"expert {m + 1}: {100 * record[-1]['load'][m]:.0f} %")
    fig.supxlabel("pass", fontsize=13)
    fig.suptitle(f"{kind} experts", fontsize=16, weight="bold", x=0.01, ha="left")
    return fig


def accuracies(record):
    """Every expert's percent right on every cluster, at the start and at the end, as a Markdown
    table.
    """
    first, last = (np.array(r["accuracy"]) for r in (record[0], record[-1]))
    head = "| expert | " + " | ".join(f"cluster {k + 1}" for k in range(first.shape[1])) + " |"
    lines = [head, "|" + "---|" * (first.shape[1] + 1)]
    for m in range(len(first)):
        cells = [f"{a:.0f} → {b:.0f}" for a, b in zip(first[m], last[m], strict=True)]
        lines.append(f"| {m + 1} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def specs(job):
    config = runs.quick_config(chen2022.Config()) if job.quick else chen2022.Config()
    return chen2022.run_one, [
        runs.spec_of(config, m, 1, "code", SEED, record=EVERY) for m in KINDS.values()
    ]


def make(job):
    runs = dict(zip(KINDS, job.sweep.map(*specs(job), desc="chen2022 specialisation"), strict=True))
    parts = []
    for kind, run in runs.items():
        with plots.style():
            job.save(picture(run["record"], kind), f"chen2022_specialisation_{kind}")
        parts.append(
            f"![{kind} experts](chen2022_specialisation_{kind}.png)\n\n{kind.capitalize()} "
            "experts: "
            f"{run['accuracy']:.2f} % of the test samples right, dispatch entropy "
            f"{run['entropy']:.3f}. Percent of "
            "the test samples of each cluster that each expert alone gets right, at the start → "
            "at the end:\n\n"
            f"{accuracies(run['record'])}\n"
        )
    return (
        f"Setting 1, variant `code`, seed {SEED}, one run of each kind; beside each name the "
        "expert's share of the training samples at the end.\n\n"
    ) + "\n".join(parts)
