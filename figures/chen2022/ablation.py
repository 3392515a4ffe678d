"""What makes the mixture of Chen et al. (2022) work: one part of the published code is changed, and
the code is turned into the paper's algorithm.

What to see: clusters stay mixed without steps of equal length, without routing noise, with a router
that never moves, or with a large initialisation of the experts. Most of the accuracy by which cubic
experts lead comes from the code's second softmax.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import chen2022
from moe_np.experiments.chen2022 import ablation
from moe_np.experiments.chen2022.ablation import Case
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import markdown_table, mean_sd, plural
from moe_np.experiments.common.statistics import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Chen et al. 2022: what makes it work"
ORDER = 55
TITLES = {"accuracy": "accuracy (% of the test samples)", "entropy": "dispatch entropy (nats)"}


def picture(rows: Sequence[Result]) -> "Figure":
    """One line per change: every run, and how far its mean is from that of the published code."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(13, 0.55 * len(rows) + 1.6), sharey=True)
    for ax, (measure, title) in zip(axes, TITLES.items(), strict=True):
        published = np.mean(rows[0][measure])
        ax.axvline(published, color=plots.GREY, linewidth=1.2, linestyle=":")
        for y, row in enumerate(rows):
            colour = plots.BLACK if y == 0 else plots.BLUE
            values = row[measure]
            ax.plot([published, np.mean(values)], [y, y], color=colour, linewidth=2, alpha=0.4)
            height = np.full(len(values), y)
            ax.scatter(values, height, s=60, c=colour, alpha=0.7, linewidths=0)
        ax.set_title(title)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), [row["row"] for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return fig


def ablation_table(rows: Sequence[Result]) -> str:
    """Mean and standard deviation of each change, and the passes of each run."""
    cells = [
        (
            row["row"],
            mean_sd(row["summary"]["accuracy"], 2),
            mean_sd(row["summary"]["entropy"], 3),
            ", ".join(map(str, row["epochs"])),
        )
        for row in rows
    ]
    return markdown_table(("changed", "accuracy", "entropy", "passes"), cells)


def gate_table(rows: Sequence[Result]) -> str:
    """Accuracy / entropy: a row per gate and loss, a column per setting and kind of expert."""
    systems = dict.fromkeys((row["setting"], row["model"]) for row in rows)
    kinds = {"moe_nonlinear": "cubic", "moe_linear": "linear"}
    head = ("gate and loss", *(f"S{setting} {kinds[model]}" for setting, model in systems))
    cells = {}
    for row in rows:
        accuracy, entropy = (row["summary"][measure][0] for measure in ("accuracy", "entropy"))
        cells.setdefault(row["row"], [row["row"]]).append(f"{accuracy:.2f} / {entropy:.2f}")
    return markdown_table(head, cells.values())


def tables(job: Job) -> Iterator[tuple[list[Case], int]]:
    """(cases, number of seeds) of the two tables."""
    seeds = 1 if job.quick else ablation.ABLATION_SEEDS
    yield ablation.ablation_cases(), seeds
    yield ablation.gate_and_loss_cases(), seeds if job.quick or job.full else 2


def specs(job: Job) -> tuple:
    """(run_one, the runs of both tables)."""
    runs: list[Spec] = []
    for cases, seeds in tables(job):
        runs += ablation.case_specs(cases, seeds=seeds, quick=job.quick)
    return chen2022.run_one, runs


def make(job: Job) -> str:
    """Run the cases and draw the figure; return its section of the report."""
    rows, gates = (
        ablation.run_cases(cases, seeds=seeds, sweep=job.sweep, quick=job.quick)
        for cases, seeds in tables(job)
    )
    with plots.style():
        job.save(picture(rows), "chen2022_ablation")
    seeds, gate_seeds = (len(results[0]["accuracy"]) for results in (rows, gates))
    parts = [
        "![one part changed](chen2022_ablation.png)",
        "Setting 1, cubic experts, variant `code` with one change, "
        f"{plural(seeds, 'seed')} per row (mean ± population standard deviation):",
        ablation_table(rows),
        power_sentence(
            {row["row"]: describe(row["accuracy"])[:2] for row in rows},
            seeds,
            "points of accuracy",
            digits=2,
            paired=False,
        ),
        "From the published code to the paper's algorithm, accuracy / entropy, means of "
        f"{plural(gate_seeds, 'seed')}. With a single softmax there is no stop rule, since the "
        "rule was made for the smallest loss that two softmaxes allow:",
        gate_table(gates),
        "Linear experts gain most from a single softmax before the cross-entropy: the second one "
        "flattens the loss of the samples that they get wrong. Entropy is lower with cubic experts "
        "in every row and setting.",
    ]
    return "\n\n".join(parts)
