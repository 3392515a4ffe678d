"""Table 1 of Chen et al. (2022): accuracy and dispatch entropy in four settings, single networks
and mixtures.

What to see: mixtures beat single networks, with either kind of expert. With the published code
cubic experts beat linear ones by several points. With the algorithm that the paper prints linear
experts come close, and a few runs of cubic ones end with mixed clusters. Cubic experts divide the
clusters far better in both.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import chen2022
from moe_np.experiments.chen2022.published_numbers import mark, other_evidence, second_hand
from moe_np.experiments.chen2022.report import NAMES
from moe_np.experiments.chen2022.runs import SINGLE_SETTINGS
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import markdown_table, mean_sd, plural
from moe_np.experiments.common.statistics import describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Chen et al. 2022, Table 1: accuracy and dispatch entropy"
ORDER = 50
PAPER_SEEDS = 3  # runs of the variant that nobody published; ten with --full
# of a single cubic network, published without a deviation; a run takes as long as three mixtures
SINGLE_SEEDS = 2  # ten with --full
COLOURS = {"moe_nonlinear": plots.BLUE, "moe_linear": plots.ORANGE}
LABELS = {"moe_nonlinear": "cubic experts", "moe_linear": "linear experts"}
HEAD = (
    *("setting", "model", "accuracy, published", "`code`", "`paper`"),
    *("entropy, published", "`code`", "`paper`"),
)


class Pair(NamedTuple):
    """The results of one setting."""

    code: Result  # variant code, with the single networks
    paper: Result  # variant paper


# --- the picture ----------------------------------------------------------------------------------


def picture(results: Sequence[Pair]) -> "Figure":
    """Accuracies to the left, entropies to the right."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 7.5), sharey=True)
    draw(left, results, "accuracy")
    draw(right, results, "entropy")
    left.set(title="accuracy (% of the test samples)", xlim=(None, 100.6))
    right.set(title="dispatch entropy (nats)", xlim=(-0.05, 1.45))
    for i, (model, colour) in enumerate(COLOURS.items()):
        x = float(np.mean(results[0].code["models"][model]["entropy"]))
        side, shift = ("left", 0.2) if model == "moe_nonlinear" else ("right", -0.2)
        style = {"size": 15, "ha": side, "weight": "bold"}
        plots.label(right, x + shift, 1.3 * i, LABELS[model], colour, **style)
    marks = {
        "published": {"marker": "D", "c": "black"},
        "variant code": {"c": plots.GREY},
        "variant paper": {"facecolors": "none", "edgecolors": plots.GREY},
    }
    for i, (text, style) in enumerate(marks.items()):
        right.scatter(0.64, 4.2 + 0.4 * i, s=34, **style)
        right.text(0.67, 4.2 + 0.4 * i, text, fontsize=12, ha="left", va="center")
    return fig


def draw(ax: "Axes", results: Sequence[Pair], measure: str) -> None:
    """A block per setting; in it, for cubic and for linear experts, the published numbers, the runs
    of the code and those of the paper.
    """
    mark = {"fmt": "D", "color": "black", "markersize": 5, "capsize": 3, "linewidth": 1.3}
    for block, (code, paper) in enumerate(results):
        for i, (model, colour) in enumerate(COLOURS.items()):
            y = 3 * block + 1.3 * i
            dots(ax, y, code["models"][model][measure], colour, hollow=False)
            dots(ax, y + 0.4, paper["models"][model][measure], colour, hollow=True)
            mean, sd = code["paper"][model][measure]
            ax.errorbar(mean, y - 0.4, xerr=sd, **mark)
    ax.set_ylim(3 * len(results) - 0.6, -0.8)
    ticks = [3 * block + 0.65 for block in range(len(results))]
    ax.set_yticks(ticks, [f"setting {block + 1}" for block in range(len(results))])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def dots(ax: "Axes", y: float, values: list[float], colour: str, *, hollow: bool) -> None:
    """All runs on one line, their mean as a bar."""
    face = {"facecolors": "none", "edgecolors": colour} if hollow else {"c": colour, "alpha": 0.55}
    ax.scatter(values, np.full(len(values), y), s=34, linewidths=1.3 if hollow else 0, **face)
    ax.plot([np.mean(values)] * 2, [y - 0.13, y + 0.13], color=colour, linewidth=3)


# --- the table ------------------------------------------------------------------------------------


def rows(results: Sequence[Pair]) -> Iterator[list[Any]]:
    """Cells of the table: published, code and paper beside each other."""
    for code, paper in results:
        for model in code["summary"]:
            cells = [code["setting"], NAMES[model]]
            sources = (code["paper"], code["summary"], paper["summary"])
            for measure, digits in (("accuracy", 2), ("entropy", 3)):
                values = [source.get(model, {}).get(measure) for source in sources]
                cells += [mean_sd(value, digits) for value in values]
            cells[2] += mark(code["setting"], model)
            yield cells


def mixed_again(results: Sequence[Pair]) -> tuple[int, int]:
    """Cubic runs of variant paper that had divided the clusters and ended mixed: (their number, of
    this many runs).
    """
    runs = [
        run
        for pair in results
        for run in pair.paper["models"]["moe_nonlinear"]["entropy_per_epoch"]
    ]
    return sum(min(run) < 0.05 and run[-1] > 0.1 for run in runs), len(runs)


def both_halves(results: Sequence[Pair]) -> str:
    """The paragraph on what the printed algorithm does to linear experts, and to cubic ones."""
    parts = []
    for code, paper in results:
        texts = []
        for kind, model in (("linear", "moe_linear"), ("cubic", "moe_nonlinear")):
            by_paper = paper["summary"][model]
            accuracies = (code["summary"][model]["accuracy"], by_paper["accuracy"])
            entropy = mean_sd(by_paper["entropy"], 3)
            texts.append(f"{kind} experts {' → '.join(map(mean_sd, accuracies))} ({entropy})")
        parts.append(f"setting {code['setting']}, {' and '.join(texts)}")
    code, paper = results[0]
    lowest = min(min(pair.paper["models"]["moe_nonlinear"]["accuracy"]) for pair in results)
    return (
        f"**Both halves.** From `code` ({plural(len(code['seeds']), 'run')}) to `paper` "
        f"({plural(len(paper['seeds']), 'run')}), percent right and in brackets the entropy of "
        f"`paper`, mean ± population standard deviation: {'; '.join(parts)}. The lowest "
        f"run of cubic experts by the printed algorithm has {lowest:.2f} %: a few such runs decide "
        "which kind of expert has the higher mean, and few runs cannot tell."
    )


def power(results: Sequence[Pair]) -> str:
    """Which differences of the mixtures' accuracy the runs of either variant can show."""
    parts = []
    for variant in ("code", "paper"):
        of_variant = [getattr(pair, variant) for pair in results]
        accuracies = {
            f"`{variant}`, setting {result['setting']}, {kind} experts": describe(
                result["models"][model]["accuracy"]
            )[:2]
            for result in of_variant
            for kind, model in (("linear", "moe_linear"), ("cubic", "moe_nonlinear"))
        }
        n = len(of_variant[0]["seeds"])
        parts.append(power_sentence(accuracies, n, "points", digits=2, runs="run", paired=False))
    return "\n\n".join(parts)


# --- the section of the report --------------------------------------------------------------------


def calls(job: Job) -> Iterator[list[dict[str, Any]]]:
    """Arguments of `chen2022.run` per setting: variant code, variant paper, and where the paper has
    single networks, the cubic ones.
    """
    seeds = {} if job.full else {"seeds": 2 if job.quick else PAPER_SEEDS}
    single_seeds = {} if job.full else {"seeds": SINGLE_SEEDS}
    mixtures = tuple(COLOURS)
    for setting in (1, 2, 3, 4):
        common = {"setting": setting, "quick": job.quick}
        with_single = setting in SINGLE_SETTINGS
        models = ("single_linear", *mixtures) if with_single else mixtures
        arguments = [
            {**common, "only": models},
            {**common, **seeds, "variant": "paper", "only": mixtures},
        ]
        if with_single:
            arguments.append({**common, **single_seeds, "only": ("single_nonlinear",)})
        yield arguments


def specs(job: Job) -> tuple:
    """(run_one, all runs)."""
    plans = [chen2022.specs(**call) for arguments in calls(job) for call in arguments]
    return chen2022.run_one, [spec for plan in plans for spec in plan]


def run(job: Job) -> list[Pair]:
    """The results of all settings."""
    results = []
    for arguments in calls(job):
        code, paper, *single = (chen2022.run(**call, sweep=job.sweep) for call in arguments)
        for part in ("models", "summary"):
            code[part] = {**(single[0][part] if single else {}), **code[part]}
        results.append(Pair(code, paper))
    return results


def make(job: Job) -> str:
    """Run all settings and draw the figure; return its section of the report."""
    results = run(job)
    with plots.style():
        job.save(picture(results), "chen2022_table1")
    code, paper = results[0]
    mixed, count = mixed_again(results)
    single_runs = len(code["models"]["single_nonlinear"]["accuracy"])
    parts = [
        "![accuracy and entropy](chen2022_table1.png)",
        markdown_table(HEAD, rows(results)),
        "Percent of the test samples and nats, mean ± population standard deviation. `code` is the "
        f"authors' published program, from which their numbers come ({len(code['seeds'])} runs; "
        f"single cubic networks {single_runs}). `paper` is the algorithm as printed, for which "
        f"nobody published numbers ({len(paper['seeds'])} runs): the softmax weight of the chosen "
        "expert instead of its raw noisy logit, one softmax before the cross-entropy instead of "
        "two, the Frobenius norm, no noise at test time, no stop rule. Single networks are the "
        "same in both. One draw of the data per setting (not the authors' draw, which the replay "
        "uses).",
        f"In variant `paper`, {mixed} of {count} runs with cubic experts had divided the clusters "
        "(entropy under .05) and ended with mixed ones (over .1). A likely reason: a logistic loss "
        "has no upper bound, cubic outputs are large at that time, and the router's steps, unlike "
        "those of the experts, have no fixed length, so that a few samples sent to the wrong "
        "expert can move the router far. The code's second softmax keeps the loss of every sample "
        "under 1.32. How far such a run falls changes with the last bits, and so from processor to "
        "processor.",
        both_halves(results),
        power(results),
        second_hand(),
        other_evidence(),
    ]
    return "\n\n".join(parts)
