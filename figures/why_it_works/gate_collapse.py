"""Why the gate does not send everything to one expert, and what it can learn from one expert at a
time.

What to see: left, the gate's first gradient falls as fast as the others' share when it begins with
a bias towards one expert: the opposite of a large gradient. Middle: training still leaves a small
bias, later the larger it is, and a large one never in the time given. Right: with k = 1 and
renormalised weights the router's gradient is exactly 0 and the error stays where it was; with the
weight left as it is one expert a case is enough.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.why_it_works import experiment as why
from moe_np.experiments.why_it_works import gate_collapse

TITLE = "Why it works: why the gate does not collapse"
ORDER = 145
QUESTIONS = ("collapse", "k")
COLOURS = {"cooperative": plots.ORANGE, "competitive": plots.GREEN, "mixture": plots.BLUE}


def gradients(ax, summary):
    for error, colour in COLOURS.items():
        own = [c for c in summary if c["kind"] == error]
        line = "o--" if error == "competitive" else "o-"  # it lies on eq. 1
        ax.plot(
            [c["bias"] for c in own],
            [c["gate gradient"][0] for c in own],
            line,
            color=colour,
            linewidth=2.5,
        )
    third = [c for c in summary if c["kind"] == "mixture"]
    for name, colour, height in zip(
        gate_collapse.EQUATIONS.values(), COLOURS.values(), (0.95, 0.88, 0.81), strict=True
    ):
        ax.text(
            0.95,
            height,
            name,
            color=colour,
            transform=ax.transAxes,
            ha="right",
            weight="bold",
            size=15,
        )
    ax.set(yscale="log", xlabel="bias of the gate at the start", xticks=[c["bias"] for c in third])
    ax.set_ylabel("length of the gate's first gradient")


def escapes(ax, summary, longest):
    """Epochs until a second expert is in use; never: a cross at the top."""
    for shift, (error, colour) in zip((-0.15, 0, 0.15), COLOURS.items(), strict=True):
        own = [c for c in summary if c["kind"] == error]
        for i, c in enumerate(own):
            if c["when"] is not None:
                ax.plot(i + shift, c["when"], "o", color=colour, markersize=10)
            if c["escaped"] < c["n"]:
                ax.plot(
                    i + shift, 1.5 * longest, "x", color=colour, markersize=11, markeredgewidth=3
                )
    ax.axhline(longest, color=plots.GREY, linewidth=1.2, linestyle="--")
    ax.text(0, 1.5 * longest, "not in the epochs given", color=plots.GREY, va="center", size=12)
    ax.set(
        yscale="log",
        ylabel="epochs until a second expert is in use",
        xlabel="bias of the gate at the start",
    )
    ax.set_xticks(range(len(own)), [f"{c['bias']:g}" for c in own])
    ax.set_ylim(1, 3 * longest)


def choices(ax, summary):
    y = np.arange(len(summary))[::-1]
    for row, c in zip(y, summary, strict=True):
        zero = c["zero"] == c["n"]
        ax.barh(row, c["error"], 0.6, color=plots.GREY if zero else plots.BLUE)
        words = (
            "gradient of the router: exactly 0"
            if zero
            else f"first gradient {c['gradient'][0]:.2f}"
        )
        ax.text(c["error"], row + 0.42, words, ha="right" if zero else "left", va="bottom", size=11)
    ax.set_yticks(y, [c["choice"].replace(", ", ",\n") for c in summary])
    ax.set(xlabel="test error (geometric mean)", ylim=(-0.6, len(summary) - 0.2))


def make(job):
    import matplotlib.pyplot as plt

    result = why.run(sweep=job.sweep, quick=job.quick, questions=QUESTIONS)
    found = {name: one["summary"] for name, one in result["questions"].items()}
    dense = [c for c in found["collapse"] if c["gate"] == "dense"]
    longest = max(s["epochs"] for s in why.plan(quick=job.quick, questions=("collapse",))[1])
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(17, 5.4))
        fig.get_layout_engine().set(w_pad=0.15)
        gradients(axes[0], dense)
        escapes(axes[1], dense, longest)
        choices(axes[2], found["k"])
        job.save(fig, "why_gate")
    return "![the gate](why_gate.png)\n\n" + why.table(result)
