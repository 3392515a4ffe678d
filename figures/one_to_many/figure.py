"""The inverse problem of Bishop (2006) and Murphy (2012): one net averages the branches, a mixture
keeps them apart.

What to see: left, x as a function of t is no problem for the net. Second, asked for t at a given x
it answers with the mean, which between the branches is no value of t that occurs. Third, each
linear expert has taken a branch; its line is as thick as the gate's probability of it at that x.
Right, the output of the expert with the largest gate probability: it jumps, and stays on a branch;
the blend of all three (dashed) is as bad as the net's answer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, Params
from moe_np.data import inverse
from moe_np.experiments.one_to_many.experiment import run
from moe_np.experiments.one_to_many.report import report
from moe_np.experiments.one_to_many.runs import (
    BEST,
    NET,
    Cases,
    Config,
    fit,
    fit_forward,
    spec_of,
)
from moe_np.mixtures import jacobs1991, nowlan1991

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "One to many: a net's mean and a mixture's modes"
ORDER = 115
SEED = 0
T = np.linspace(0, 1, 401)[:, None]
X = np.linspace(-0.1, 1.1, 481)[:, None]


def draw(
    axes: "Sequence[Axes]", train: Cases, forward: Params, net: Params, mixture: Params
) -> None:
    """Four panels: forward problem, the net, the experts, the prediction."""
    x, t = train
    forward_ax, net_ax, expert_ax, mode_ax = axes
    forward_ax.scatter(t, x, s=12, color=plots.GREY, alpha=0.5, linewidths=0)
    y = jacobs1991.predict(forward, T, "linear")
    forward_ax.plot(T, y, color=plots.ORANGE, linewidth=3)
    forward_ax.set(title="x given t: a net", xlabel="$t$", ylabel="$x$")
    forward_ax.set(xlim=(0, 1), ylim=(-0.1, 1.1))
    for ax in axes[1:]:
        ax.scatter(x, t, s=12, color=plots.GREY, alpha=0.5, linewidths=0)
        ax.set(xlabel="$x$", ylabel="$t$", xlim=(-0.1, 1.1), ylim=(-0.05, 1.05))
    y = jacobs1991.predict(net, X, "linear")
    net_ax.plot(X, y, color=plots.ORANGE, linewidth=3)
    net_ax.set_title("t given x: the same net")
    draw_mixture(expert_ax, mode_ax, mixture)


def draw_mixture(expert_ax: "Axes", mode_ax: "Axes", mixture: Params) -> None:
    """The lines of the experts, as thick as the gate's probabilities; the mode, and the mean."""
    o = jacobs1991.experts_forward(mixture, X, "linear")[0][:, :, 0]
    p = jacobs1991.gate_forward(mixture, X)[0]
    mean, mode, top = nowlan1991.predict(mixture, X, X, kind="linear")
    order = np.argsort([np.average(o[:, e], weights=p[:, e]) for e in range(o.shape[1])])
    for e, colour in zip(order, plots.COLOURS, strict=False):
        expert_ax.scatter(X, o[:, e], s=70 * p[:, e] ** 2, color=colour, linewidths=0)
        strongest = p[:, e].argmax()
        place = beside(X[strongest, 0], o[strongest, e])
        plots.label(expert_ax, *place, f"expert {e + 1}", colour)
        chosen = np.where(top == e, mode[:, 0], np.nan)
        mode_ax.plot(X, chosen, color=colour, linewidth=3.5)
    expert_ax.set_title("three linear experts")
    mode_ax.plot(X, mean, "--", color=plots.BLACK, linewidth=1.8)
    mode_ax.set_title("mode, and dashed the mean")


def beside(x: float, y: float) -> tuple[Array, Array]:
    """A place beside a point of a line that lies inside the picture."""
    return np.clip(x, 0.15, 0.85), np.clip(y + (0.1 if y < 0.6 else -0.1), 0.04, 0.96)


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    spec = spec_of(Config(), SEED)
    with one_blas_thread():
        train, _, systems, _ = fit(spec)
        forward, _ = fit_forward(spec, train)
    net, _ = systems[NET]
    mixture, _ = systems[BEST]
    with plots.style():
        fig, axes = plt.subplots(1, 4, figsize=(17, 4.6))
        draw(axes, train, forward, net, mixture)
        job.save(fig, "one_to_many")
    x, _ = train
    y = jacobs1991.predict(net, x, "linear")
    impossible = 100 * float(1 - inverse.possible(x[:, 0], y[:, 0]).mean())
    return (
        "![one to many](one_to_many.png)\n\n"
        f"Seed {SEED}; a line in the third panel is as thick as the gate's probability. "
        f"{impossible:.0f} % of the net's answers at the training inputs cannot have led to "
        "them.\n\n" + report(result)
    )
