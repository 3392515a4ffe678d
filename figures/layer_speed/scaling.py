"""Where a sparse layer pays: its time against tokens, experts, k and width, beside two dense nets.

What to see: the sparse layer takes about the time of the dense net with the same number of active
operations, while the dense net with the same number of parameters costs E/k times as much. A
vertical line marks where the sparse layer and the dense net of its size cross, if they do: from a
few tokens on the sparse layer is faster. With k = E both do the same work.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.layer_speed.numpy_contestants import dense_numpy, moe_layer
from moe_np.experiments.layer_speed.problem import Shape, least_time, problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "The sparse layer: time against tokens, experts, k and width"
ORDER = 110
TIMED = True

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

Times = dict[str, float]  # seconds of each net of LINES
Results = dict[str, tuple[tuple[int, ...], list[Times]]]  # by what varies: its values, the times


def measure(shape: Shape, at_least: float) -> Times:
    """Seconds of a forward and backward pass of the three nets: the least of two rounds."""
    p = problem("relu", shape)
    steps = {
        "sparse": moe_layer(p),
        "same size": dense_numpy(p, shape.experts * shape.hidden),
        "same work": dense_numpy(p),
    }
    for step in steps.values():
        step(True)
    rounds = []
    for _ in range(2):
        time.sleep(0.1)  # the threads of NumPy's products spin for a while, on the layer's cores
        rounds.append(
            {name: least_time(step, True, at_least=at_least) for name, step in steps.items()}
        )
    return {name: min(times[name] for times in rounds) for name in steps}


def crossing(xs: tuple[int, ...], times: list[Times]) -> float | None:
    """Where the sparse layer and the dense net of its size last take the same time, by straight
    lines on log scales; None where they do not.
    """
    gap = np.log([t["sparse"] / t["same size"] for t in times])
    for i in reversed(range(len(xs) - 1)):
        if (gap[i] > 0) != (gap[i + 1] > 0):
            part = gap[i] / (gap[i] - gap[i + 1])
            return float(np.exp((1 - part) * np.log(xs[i]) + part * np.log(xs[i + 1])))
    return None


def picture(results: Results) -> "Figure":
    """One panel per quantity that varies."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(17, 4.6), sharey=True, layout="constrained")
    for ax, (quantity, (xs, times)) in zip(axes, results.items(), strict=True):
        for name, (label, colour, line) in LINES.items():
            style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 4}
            ax.plot(xs, [1e3 * t[name] for t in times], line, label=label, **style)
        x = crossing(xs, times)
        if x is not None:
            ax.axvline(x, color=plots.GREY, linewidth=1)
            ax.annotate(f" {x:.2g}", (x, 0.02), xycoords=("data", "axes fraction"))
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel(LABELS[quantity])
    axes[0].set_ylabel("ms, forward and backward")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def table(results: Results) -> str:
    """Crossings, and ratios at the ends, as Markdown."""
    lines = [
        "| against | cross at | sparse / same size | sparse / same work |",
        "|---|---|---|---|",
    ]
    for quantity, (xs, times) in results.items():
        x = crossing(xs, times)
        size, work = (
            " to ".join(f"{t['sparse'] / t[dense]:.2f}" for t in (times[0], times[-1]))
            for dense in ("same size", "same work")
        )
        cheaper = "sparse" if times[0]["sparse"] < times[0]["same size"] else "dense"
        cross = f"nowhere: {cheaper} is cheaper" if x is None else f"{x:.2g}"
        lines.append(f"| {LABELS[quantity]}, {xs[0]} to {xs[-1]} | {cross} | {size} | {work} |")
    return "\n".join(lines)


def make(job: Job) -> str:
    """Measure, draw, and write the section of the report."""
    at_least = 0.01 if job.quick else 0.08
    results = {}
    for quantity, values in SWEEPS.items():
        xs = values[::2] if job.quick else values
        results[quantity] = xs, [measure(BASE._replace(**{quantity: x}), at_least) for x in xs]
    with plots.style():
        job.save(picture(results), "scaling")
    return (
        "![time against tokens, experts, k and width](scaling.png)\n\n"
        "Forward and backward, float32, ReLU; where a quantity does not vary: "
        f"{BASE.tokens} tokens, width {BASE.d}, hidden {BASE.hidden}, {BASE.experts} experts, "
        f"k = {BASE.k}. As many parameters: one net of hidden size E·H; as many active "
        "operations: k·H. The crossing is the last one: a single token is slow in a dense net too, "
        "as a vector times a matrix. Ratios at the two ends.\n\n" + table(results)
    )
