"""When a mixture helps, when it overfits, and where its experts go: three pictures of data.

What to see: left, test error of four linear experts over that of a net of equal size, one dot per
task. A straight rule for each region puts the mixture ahead (below 1), clouds in the inputs or
rules that no expert has do not. Middle:
with four regions and few cases the training likelihood goes on rising with the number of experts,
the test likelihood does not. Right: six experts on a curve whose right half gets harder; they move
there.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments import why_it_works
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import join
from moe_np.experiments.why_it_works.when_it_helps import CELLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Why it works: when a mixture helps, and when there are too many experts"
ORDER = 140
SHORT = {"straight": "straight\nrules", "waves": "wavy\nrules", "smooth": "one\nrule"}
NAMES = [f"{'clouds' if clouds else 'one cloud'},\n{SHORT[rule]}" for clouds, rule in CELLS]
QUESTIONS = ("help", "learns", "more", "harder", "idle")


def runs_in_words(counts: Iterable[int]) -> str:
    """Of how many runs a mean is: "20 or 100 runs"."""
    return f"{join(sorted(set(counts)), 'or')} runs"


def ratios(ax: "Axes", values: Sequence[Sequence[float]]) -> None:
    """Error of the mixture over the net's, per cell: one dot per task, a bar at the geometric
    mean.
    """
    jitter = np.random.default_rng(0)
    for i, (colour, ratio) in enumerate(zip(plots.COLOURS, values, strict=False)):
        x = i + jitter.uniform(-0.15, 0.15, len(ratio))
        ax.scatter(x, ratio, s=30, color=colour, alpha=0.6, linewidths=0)
        mean = np.exp(np.mean(np.log(ratio)))
        ax.plot([i - 0.3, i + 0.3], [mean] * 2, color=colour, linewidth=4)
    ax.axhline(1, color=plots.BLACK, linewidth=1.2, linestyle="--")
    ax.set(yscale="log", ylabel="test error, mixture / net of equal size")
    ax.set_xlabel(f"a dot per run, {runs_in_words(map(len, values))}; bar: geometric mean", size=11)
    ax.set_xlim(-0.6, len(NAMES) - 0.4)
    ax.set_xticks(range(len(NAMES)), NAMES, size=10)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * 1.6)
    ax.text(0.02, 0.985, "net better ↑", transform=ax.transAxes, va="top", color=plots.GREY)
    ax.text(0.98, 0.02, "mixture better ↓", transform=ax.transAxes, ha="right", color=plots.GREY)


def likelihoods(ax: "Axes", summary: Sequence[Result]) -> None:
    """Training and test likelihood against the number of experts, mean ± SD."""
    experts = [cell["experts"] for cell in summary]
    for name, key, colour, up in (
        ("training", "train", plots.BLUE, 0.55),
        ("test", "test", plots.ORANGE, 2.0),
    ):
        mean, sd = np.array([cell[key] for cell in summary]).T
        ax.fill_between(experts, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
        ax.plot(experts, mean, "o-", color=colour, linewidth=2.5)
        x = experts[-1] - 0.1
        plots.label(ax, x, mean[-1] + up, name, colour, size=15, ha="right", weight="bold")
    ax.axvline(4, color=plots.GREY, linewidth=1.2, linestyle=":")
    text = {"transform": ax.get_xaxis_transform(), "color": plots.GREY, "size": 11}
    ax.text(4.15, 0.03, "as many as regions", **text)
    runs = runs_in_words(cell["n"] for cell in summary)
    ax.set(xlabel=f"experts\n(mean ± sample SD of {runs})", xticks=experts)
    ax.set_ylabel("log likelihood per case")


def halves(ax: "Axes", summary: Sequence[Result]) -> None:
    """Experts in use on the two halves of the curve, mean ± SD, per amplitude."""
    x = np.arange(len(summary))
    line = {"linewidth": 1.5, "capsize": 3}
    for key, name, colour, shift in (
        ("easy", "straight half", plots.BLUE, -0.18),
        ("hard", "wavy half", plots.ORANGE, 0.18),
    ):
        mean, sd = np.array([cell[key] for cell in summary]).T
        ax.bar(x + shift, mean, 0.34, yerr=sd, color=colour, label=name, error_kw=line)
    runs = runs_in_words(cell["n"] for cell in summary)
    ax.set(xlabel=f"amplitude of the waves\n(mean ± sample SD of {runs})", ylim=(0, 7.2))
    ax.set_ylabel("experts in use")
    ax.set_xticks(x, [f"{cell['amplitude']:g}" for cell in summary])
    ax.legend(frameon=False, loc="upper left", ncols=2, handlelength=1, columnspacing=1)


def error_ratios(job: Job) -> list[list[float]]:
    """Error of the mixture over the net's of every run, per cell."""
    specs = why_it_works.specs(quick=job.quick, only=("help",))
    results = job.sweep.map(why_it_works.run_one, specs, "when it helps")
    values = {cell: [] for cell in CELLS}
    for spec, result in zip(specs, results, strict=True):
        if spec["task"] == "regimes":
            values[spec["clouds"], spec["rule"]].append(result["mixture"] / result["net"])
    return list(values.values())


def make(job: Job) -> str:
    """Run the questions and draw them; return their section of the report."""
    import matplotlib.pyplot as plt

    values = error_ratios(job)
    result = why_it_works.run(sweep=job.sweep, quick=job.quick, only=QUESTIONS)
    summaries = {name: answer["summary"] for name, answer in result["questions"].items()}
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(17, 5.4))
        fig.get_layout_engine().set(w_pad=0.15)
        ratios(axes[0], values)
        likelihoods(axes[1], summaries["more"])
        halves(axes[2], summaries["harder"]["curve"])
        job.save(fig, "why_help")
    return f"![when it helps](why_help.png)\n\n{why_it_works.report(result)}"
