"""Fig. 3 of Jacobs et al. (1991): how the experts come to share the work, one dot an epoch.

A decision line is drawn as one point, its foot: where the normal from the origin meets it. What to
see: first every expert heads for X, the best line for one expert alone with all four vowels. There
a small lead decides: the gate gives one pair of vowels to one expert, whose line swings to T0 or
T1, the best line for that pair; the rest stay behind. The paper draws five of its eight experts, we
draw all whose foot is in the picture. The step is .04, not the .06 of Table 1, at which the feet
jump from side to side on the way and the dots blur.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.mixtures import jacobs1991 as model

TITLE = "Jacobs et al. 1991, Fig. 3: the feet of the decision lines, epoch by epoch"
ORDER = 20
SEED, STEP = 1, 0.04


def best_foot(x, d):
    """The foot of the line at which the squared error of one expert alone on x, d has its minimum."""
    from scipy.optimize import minimize

    def loss(w):
        o, cache = model.experts_forward({"W": w[:2].reshape(1, 2, 1), "b": w[2:].reshape(1, 1)}, x)
        _, grads = model.experts_backward(2 * (o - d[:, None]), cache)
        return ((d[:, None] - o) ** 2).sum(), np.append(grads["W"], grads["b"])

    w = minimize(
        loss, np.zeros(3), jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 1000}
    ).x
    return model.decision_foot(w[:2], w[2])


def draw(ax, feet, used, targets):
    """All paths in grey, those of the experts in use in colour, their turning points named, and the
    three targets.
    """
    ax.set(xlim=(-0.45, 1.1), ylim=(-0.2, 0.62), aspect="equal")
    ax.set(xlabel="foot of the decision line, $F_1$ (kHz)", ylabel="$F_2$ (kHz)")
    ax.axhline(0, color=plots.GREY, linewidth=0.6, zorder=0)
    ax.axvline(0, color=plots.GREY, linewidth=0.6, zorder=0)
    others = [e for e in range(feet.shape[1]) if e not in used]
    plots.trajectories(ax, feet[:, others], ["#B5B5B5"] * len(others), size=4)
    plots.trajectories(ax, feet[:, used], plots.COLOURS[: len(used)], size=4.5)
    for i, e in enumerate(used):
        smooth = np.stack(
            [np.convolve(feet[:, e, j], np.full(21, 1 / 21), "valid") for j in (0, 1)], axis=1
        )
        # the epoch at which it is farthest out, jumps averaged away
        turn = smooth[50:, 0].argmax() + 60
        away = (0.12, 0.1) if feet[turn, e, 1] > 0.1 else (-0.12, 0.14)
        rule = {"arrowstyle": "-", "color": plots.COLOURS[i], "linewidth": 1}
        place = feet[turn, e] + away
        ax.annotate(
            f"epoch {turn}",
            feet[turn, e],
            place,
            ha="center",
            color=plots.COLOURS[i],
            arrowprops=rule,
        )
    for name, (foot, place) in targets.items():
        ax.plot(*foot, "X", color=plots.BLACK, markersize=11, markeredgecolor="white", zorder=8)
        rule = {"arrowstyle": "-", "color": plots.BLACK, "linewidth": 1, "shrinkB": 6}
        ax.annotate(name, foot, place, ha="center", va="center", size=13, arrowprops=rule, zorder=9)


def make(job):
    import matplotlib.pyplot as plt

    spec = vowel_runs.spec_of(vowel_runs.Config(), "8 experts", SEED, STEP)
    data, _, run = vowel_runs.train(spec, keep=True)
    feet = model.decision_foot(run.history["W"][..., 0], run.history["b"][..., 0])
    p = model.gate_forward(run.params, data.x_train)[0]
    used = np.flatnonzero(model.active_experts(p))
    front = np.isin(data.vowel_train, (0, 1))
    alone, t0, t1 = (
        best_foot(data.x_train[own], data.d_train[own]) for own in (front | ~front, front, ~front)
    )
    targets = {
        "X\nbest line for all four": (alone, (0.55, 0.27)),
        "T0\n[i] | [ɪ]": (t0, (0.09, -0.14)),
        "T1\n[ɑ] | [ʌ]": (t1, (0.1, 0.2)),
    }
    with plots.style():
        fig, ax = plt.subplots(figsize=(10, 5.8))
        draw(ax, feet, used, targets)
        job.save(fig, "jacobs1991_fig3")
    closest = np.linalg.norm(feet - alone, axis=2).min(axis=0)
    within = " and ".join(f"{closest[e]:.2f}" for e in used)
    return (
        "![feet](jacobs1991_fig3.png)\n\n"
        f"Eight experts, seed {SEED}, step {STEP:g}, {run.epochs} epochs. Circles: the start; squares: the end; in "
        f"colour the {len(used)} experts that are in use at the end, with the epoch at which their line turned back. "
        f"Their feet came within {within} kHz of X = ({alone[0]:.2f}, {alone[1]:.2f}). "
        "T0 and T1 are the best lines for one pair of vowels alone; the run stops at its error of .08, before the "
        "experts are all the way there."
    )
