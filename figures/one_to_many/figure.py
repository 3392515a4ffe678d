"""The inverse problem of Bishop (2006) and Murphy (2012): one net averages the branches, a mixture
keeps them apart.

What to see: left, x as a function of t is no problem for the net. Second, asked for t at a given x
it answers with the mean, which between the branches is no value of t that occurs. Third, each
linear expert has taken a branch; the line is as thick as the gate believes in it at that x. Right,
the output of the expert with the largest gate probability: it jumps, and stays on a branch; the
blend of all three (dashed) is as bad as the net's answer.
"""

import numpy as np

from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.data import inverse
from moe_np.experiments.one_to_many import experiment
from moe_np.mixtures import jacobs1991 as model
from moe_np.mixtures import nowlan1991 as competing

TITLE = "One to many: a net's mean and a mixture's modes"
ORDER = 115
SEED = 0


def draw(axes, train, net, forward, mixture):
    """Four panels: forward problem, the net, the experts, the prediction."""
    x, t = train
    line = np.linspace(0, 1, 401)[:, None]
    forward_ax, net_ax, expert_ax, mode_ax = axes
    forward_ax.scatter(t, x, s=12, color=plots.GREY, alpha=0.5, linewidths=0)
    forward_ax.plot(line, model.predict(forward, line, "linear"), color=plots.ORANGE, linewidth=3)
    forward_ax.set(
        title="x given t: a net", xlabel="$t$", ylabel="$x$", xlim=(0, 1), ylim=(-0.1, 1.1)
    )
    for ax in axes[1:]:
        ax.scatter(x, t, s=12, color=plots.GREY, alpha=0.5, linewidths=0)
        ax.set(xlabel="$x$", ylabel="$t$", xlim=(-0.1, 1.1), ylim=(-0.05, 1.05))
    wide = np.linspace(-0.1, 1.1, 481)[:, None]
    net_ax.plot(wide, model.predict(net, wide, "linear"), color=plots.ORANGE, linewidth=3)
    net_ax.set_title("t given x: the same net")
    o = model.experts_forward(mixture, wide, "linear")[0][:, :, 0]
    p = model.gate_forward(mixture, wide)[0]
    order = np.argsort([np.average(o[:, e], weights=p[:, e]) for e in range(o.shape[1])])
    for e, colour in zip(order, plots.COLOURS, strict=False):
        expert_ax.scatter(wide, o[:, e], s=70 * p[:, e] ** 2, color=colour, linewidths=0)
        strong = p[:, e].argmax()
        plots.label(expert_ax, *place(wide[strong, 0], o[strong, e]), f"expert {e + 1}", colour)
    expert_ax.set_title("three linear experts")
    mean, mode, top = competing.predict(mixture, wide, wide, kind="linear")
    for e, colour in zip(order, plots.COLOURS, strict=False):
        own = np.where(top == e, mode[:, 0], np.nan)
        mode_ax.plot(wide, own, color=colour, linewidth=3.5)
    mode_ax.plot(wide, mean, "--", color=plots.BLACK, linewidth=1.8)
    mode_ax.set_title("mode, and dashed the mean")


def place(x, y):
    """Beside the line and inside the picture."""
    return np.clip(x, 0.15, 0.85), np.clip(y + (0.1 if y < 0.6 else -0.1), 0.04, 0.96)


def make(job):
    import matplotlib.pyplot as plt

    result = experiment.run(sweep=job.sweep, quick=job.quick)
    spec = experiment.spec_of(experiment.Config(), SEED)
    with one_blas_thread():
        train, _, systems, _ = experiment.fit(spec)
        forward = experiment.fit_forward(spec, train)
    with plots.style():
        fig, axes = plt.subplots(1, 4, figsize=(17, 4.6))
        draw(axes, train, systems["net"][0], forward[0], systems[experiment.BEST][0])
        job.save(fig, "one_to_many")
    y = model.predict(systems["net"][0], train[0], "linear")
    gone = 100 * float(1 - inverse.possible(train[0][:, 0], y[:, 0]).mean())
    return (
        "![one to many](one_to_many.png)\n\n"
        f"Seed {SEED}; a line in the third panel is as thick as the gate's probability. {gone:.0f} % of the net's "
        "answers at the training inputs cannot have led to them.\n\n" + experiment.table(result)
    )
