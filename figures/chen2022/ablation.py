"""What makes the mixture of Chen et al. (2022) work: one thing changed at a time, and the code
turned into the paper.

What to see: without steps of equal length, without routing noise, with a router that stands still
or with experts that start large, clusters stay mixed. And most of the accuracy by which cubic
experts lead comes from the code's second softmax.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments import chen2022
from moe_np.experiments.chen2022 import ablation
from moe_np.experiments.common.reports import mean_sd

TITLE = "Chen et al. 2022: what makes it work"
ORDER = 55


def picture(rows):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(13, 0.55 * len(rows) + 1.6), sharey=True)
    titles = {"accuracy": "accuracy (% of the test samples)", "entropy": "dispatch entropy (nats)"}
    for ax, (what, title) in zip(axes, titles.items(), strict=True):
        usual = np.mean(rows[0][what])
        ax.axvline(usual, color=plots.GREY, linewidth=1.2, linestyle=":")
        for y, row in enumerate(rows):
            colour = plots.BLACK if y == 0 else plots.BLUE
            ax.plot([usual, np.mean(row[what])], [y, y], color=colour, linewidth=2, alpha=0.4)
            ax.scatter(
                row[what], np.full(len(row[what]), y), s=60, c=colour, alpha=0.7, linewidths=0
            )
        ax.set_title(title)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), [row["row"] for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return fig


def table(rows):
    lines = ["| changed | accuracy | entropy | passes |", "|---|---|---|---|"]
    for row in rows:
        cells = [
            row["row"],
            *(mean_sd(row["summary"][k], d) for k, d in (("accuracy", 2), ("entropy", 3))),
        ]
        lines.append(f"| {' | '.join(cells)} | {', '.join(map(str, row['epochs']))} |")
    return "\n".join(lines)


def gate_table(rows):
    systems = list(dict.fromkeys((row["setting"], row["model"]) for row in rows))
    head = [
        f"S{setting} {'cubic' if model == 'moe_nonlinear' else 'linear'}"
        for setting, model in systems
    ]
    lines = ["| gate and loss | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name in dict.fromkeys(row["row"] for row in rows):
        own = [row["summary"] for row in rows if row["row"] == name]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{s['accuracy'][0]:.2f} / {s['entropy'][0]:.2f}" for s in own)
            + " |"
        )
    return "\n".join(lines)


def tables(job):
    """(cases, how many seeds) of the two tables."""
    many = 1 if job.quick else ablation.ABLATION_SEEDS
    yield ablation.ablation_cases(), many
    yield ablation.gate_and_loss_cases(), many if job.quick or job.full else 2


def specs(job):
    both = [
        ablation.case_specs(cases, seeds=seeds, quick=job.quick) for cases, seeds in tables(job)
    ]
    return chen2022.run_one, both[0] + both[1]


def make(job):
    both = tables(job)
    rows, gates = (
        ablation.run_cases(c, seeds=seeds, sweep=job.sweep, quick=job.quick) for c, seeds in both
    )
    many, few = (len(some[0]["accuracy"]) for some in (rows, gates))
    with plots.style():
        job.save(picture(rows), "chen2022_ablation")
    return (
        "![one thing changed at a time](chen2022_ablation.png)\n\n"
        f"Setting 1, cubic experts, variant `code` with one change, {many} seeds each (mean ± "
        "standard "
        "deviation):\n\n"
        f"{table(rows)}\n\n"
        f"From the published code to the paper's algorithm, accuracy / entropy, means of {few} "
        "seeds. A single "
        "cross-entropy is trained without the stop rule, which was made for the floor of two "
        "softmaxes:\n\n"
        f"{gate_table(gates)}\n\n"
        "Linear experts gain most from a single softmax before the cross-entropy: the second one "
        "flattens the loss "
        "of the samples they get wrong. Entropy is lower with cubic experts in every row and "
        "setting.\n"
    )
