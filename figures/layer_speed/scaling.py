"""Where a sparse layer pays: its time against tokens, experts, k and width, beside two dense nets.

What to see: the sparse layer runs along with the dense net of the same active operations, while the
dense net of the same number of parameters costs E/k times as much. A line stands where the two nets
of one size cross, if they do: from a few tokens on the sparse one is the faster. With k = E both do
the same work.
"""

import time

import numpy as np

from moe_np import plots
from moe_np.experiments.layer_speed import contestants
from moe_np.experiments.layer_speed.contestants import Shape

TITLE = "The sparse layer: time against tokens, experts, k and width"
ORDER = 110

BASE = Shape(1024, 64, 16)
SWEEPS = {
    "tokens": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    "experts": (2, 4, 8, 16, 32, 64),
    "k": (2, 3, 4, 6, 8, 10, 12, 14, 16),
    "d": (16, 32, 64, 128, 256),
}
LABELS = {
    "tokens": "tokens N",
    "experts": "experts E",
    "k": "choices k",
    "d": "width D (hidden 4D)",
}
LINES = {
    "sparse": ("sparse layer", plots.BLUE, "-"),
    "same size": ("dense, as many parameters", plots.BLACK, "-"),
    "same work": ("dense, as many active operations", plots.GREY, ":"),
}


def measure(shape, at_least):
    """Seconds of a forward and backward pass of the three nets, in turn, twice; the least counts."""
    p = contestants.problem("relu", shape)
    steps = {
        "sparse": contestants.moe_np(p),
        "same size": contestants.dense_numpy(p, shape.experts * shape.hidden),
        "same work": contestants.dense_numpy(p),
    }
    for step in steps.values():
        step(True)
    rounds = []
    for _ in range(2):
        time.sleep(
            0.1
        )  # the threads of NumPy's products look for more work for a while, on the sparse layer's cores
        rounds.append(
            {k: contestants.least_time(step, True, at_least=at_least) for k, step in steps.items()}
        )
    return {k: min(r[k] for r in rounds) for k in steps}


def crossing(xs, times):
    """Where the sparse layer and the dense net of its size last take the same time, by straight
    lines on log scales.
    """
    gap = np.log([t["sparse"] / t["same size"] for t in times])
    for i in reversed(range(len(xs) - 1)):
        if (gap[i] > 0) != (gap[i + 1] > 0):
            part = gap[i] / (gap[i] - gap[i + 1])
            return float(np.exp((1 - part) * np.log(xs[i]) + part * np.log(xs[i + 1])))
    return None


def picture(results):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(17, 4.6), sharey=True, layout="constrained")
    for ax, (what, (xs, times)) in zip(axes, results.items(), strict=True):
        for name, (label, colour, line) in LINES.items():
            ax.plot(
                xs,
                [1e3 * t[name] for t in times],
                line,
                color=colour,
                marker="o",
                markersize=4,
                label=label,
            )
        at = crossing(xs, times)
        if at is not None:
            ax.axvline(at, color=plots.GREY, linewidth=1)
            ax.annotate(f" {at:.2g}", (at, 0.02), xycoords=("data", "axes fraction"))
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel(LABELS[what])
    axes[0].set_ylabel("ms, forward and backward")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def table(results):
    lines = [
        "| against | cross at | sparse / same size | sparse / same work |",
        "|---|---|---|---|",
    ]
    for what, (xs, times) in results.items():
        at = crossing(xs, times)
        ends = [
            " to ".join(f"{t['sparse'] / t[other]:.2f}" for t in (times[0], times[-1]))
            for other in ("same size", "same work")
        ]
        cheaper = "sparse" if times[0]["sparse"] < times[0]["same size"] else "dense"
        cross = f"nowhere: {cheaper} is cheaper" if at is None else f"{at:.2g}"
        lines.append(f"| {LABELS[what]}, {xs[0]} to {xs[-1]} | {cross} | {ends[0]} | {ends[1]} |")
    return "\n".join(lines)


def make(job):
    at_least = 0.01 if job.quick else 0.08
    results = {}
    for what, xs in SWEEPS.items():
        xs = xs[::2] if job.quick else xs
        results[what] = xs, [measure(BASE._replace(**{what: x}), at_least) for x in xs]
    with plots.style():
        job.save(picture(results), "scaling")
    return (
        "![time against tokens, experts, k and width](scaling.png)\n\n"
        f"Forward and backward, float32, ReLU; where a quantity does not vary: {BASE.tokens} tokens, width {BASE.d}, "
        f"hidden {BASE.hidden}, {BASE.experts} experts, k = {BASE.k}. As many parameters: one net of hidden size E·H; "
        "as many active operations: k·H. The crossing is the last one: a single token is slow in a dense net too, as a "
        "vector times a matrix. Ratios at the two ends.\n\n" + table(results)
    )
