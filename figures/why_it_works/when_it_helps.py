"""When a mixture helps, when it overfits, and where its experts go: three pictures of data.

What to see: left, test error of four linear experts over that of a net of equal size, one dot a
task. A rule for each region puts the mixture ahead (below 1), clouds in the inputs do not. Middle:
with four regions and few cases the training likelihood goes on rising with the number of experts,
the test likelihood does not. Right: six experts on a curve whose right half gets harder; they move
there.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.why_it_works import experiment as why
from moe_np.experiments.why_it_works import when_it_helps

TITLE = "Why it works: when a mixture helps, and when there are too many experts"
ORDER = 140
NAMES = (
    "clouds,\na rule each",
    "clouds,\none rule",
    "one cloud,\na rule each",
    "one cloud,\none rule",
)
QUESTIONS = ("help", "learns", "more", "harder")


def ratios(ax, runs):
    """Error of the mixture over the net's, in the order of the cells: a dot a task, the geometric
    mean as a bar.
    """
    jitter = np.random.default_rng(0)
    for i, (colour, own) in enumerate(zip(plots.COLOURS, runs, strict=False)):
        ax.scatter(
            i + jitter.uniform(-0.15, 0.15, len(own)),
            own,
            s=30,
            color=colour,
            alpha=0.6,
            linewidths=0,
        )
        ax.plot([i - 0.3, i + 0.3], [np.exp(np.mean(np.log(own)))] * 2, color=colour, linewidth=4)
    ax.axhline(1, color=plots.BLACK, linewidth=1.2, linestyle="--")
    ax.set(
        yscale="log",
        ylabel="test error, mixture / net of equal size",
        xlim=(-0.6, len(NAMES) - 0.4),
    )
    ax.set_xticks(range(len(NAMES)), NAMES, size=11)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * 1.6)
    ax.text(0.02, 0.985, "net better ↑", transform=ax.transAxes, va="top", color=plots.GREY)
    ax.text(0.98, 0.02, "mixture better ↓", transform=ax.transAxes, ha="right", color=plots.GREY)


def likelihoods(ax, summary):
    experts = [c["experts"] for c in summary]
    for name, key, colour in (("training", "train", plots.BLUE), ("test", "test", plots.ORANGE)):
        mean, sd = np.array([c[key] for c in summary]).T
        ax.fill_between(experts, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
        ax.plot(experts, mean, "o-", color=colour, linewidth=2.5)
        up = 0.55 if name == "training" else 2.0
        plots.label(
            ax, experts[-1] - 0.1, mean[-1] + up, name, colour, size=15, ha="right", weight="bold"
        )
    ax.axvline(4, color=plots.GREY, linewidth=1.2, linestyle=":")
    ax.text(
        4.15,
        0.03,
        "as many as regions",
        transform=ax.get_xaxis_transform(),
        color=plots.GREY,
        size=11,
    )
    ax.set(xlabel="experts", ylabel="log likelihood a case", xticks=experts)


def halves(ax, summary):
    x = np.arange(len(summary))
    for key, name, colour, shift in (
        ("easy", "straight half", plots.BLUE, -0.18),
        ("hard", "wavy half", plots.ORANGE, 0.18),
    ):
        mean, sd = np.array([c[key] for c in summary]).T
        ax.bar(
            x + shift,
            mean,
            0.34,
            yerr=sd,
            color=colour,
            error_kw={"linewidth": 1.5, "capsize": 3},
            label=name,
        )
    ax.set(xlabel="amplitude of the waves", ylabel="experts in use", ylim=(0, 7.2))
    ax.set_xticks(x, [f"{c['amplitude']:g}" for c in summary])
    ax.legend(frameon=False, loc="upper left", ncols=2, handlelength=1, columnspacing=1)


def make(job):
    import matplotlib.pyplot as plt

    _, specs = why.plan(quick=job.quick, questions=("help",))
    runs = job.sweep.map(why.run_one, specs, "when it helps")
    own = [
        [
            r["mixture"] / r["net"]
            for s, r in zip(specs, runs, strict=True)
            if s["task"] == "regimes" and (s["clouds"], s["rules"]) == cell
        ]
        for cell in when_it_helps.CELLS
    ]
    result = why.run(sweep=job.sweep, quick=job.quick, questions=QUESTIONS)
    found = {name: one["summary"] for name, one in result["questions"].items()}
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(17, 5.4))
        fig.get_layout_engine().set(w_pad=0.15)
        ratios(axes[0], own)
        likelihoods(axes[1], found["more"])
        halves(axes[2], found["harder"]["curve"])
        job.save(fig, "why_help")
    return "![when it helps](why_help.png)\n\n" + why.table(result)
