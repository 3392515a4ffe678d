"""Fig. 3 of Jacobs et al. (1991): how the experts divide the work, one dot per epoch.

A decision line is drawn as one point, its foot: where the normal from the origin meets it. What to
see: first every expert moves towards X, the best line for one expert with all four vowels. There a
small lead decides: the gating network gives one pair of vowels to one expert, whose line turns to
T0 or T1, the best line for that pair; the others stay behind. The paper draws five of its eight
experts; here all are drawn whose foot is in the picture. The learning rate is .04. With the .06 of
Table 1 the feet jump from side to side on the way, and the dots blur.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.base.types import Array, ArrayNC, ArrayND
from moe_np.experiments.jacobs1991.runs import Config, spec_of, train
from moe_np.mixtures.jacobs1991 import (
    active_experts,
    decision_foot,
    experts_backward,
    experts_forward,
    gate_forward,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Jacobs et al. 1991, Fig. 3: the feet of the decision lines, epoch by epoch"
ORDER = 20
SEED = 1
LEARNING_RATE = 0.04


def best_foot(x: ArrayND, d: ArrayNC) -> Array:
    """The foot of the line with the smallest squared error of one expert alone on x, d."""
    from scipy.optimize import minimize

    def loss_and_gradient(w):
        params = {"W": w[:2].reshape(1, 2, 1), "b": w[2:].reshape(1, 1)}
        o, cache = experts_forward(params, x)
        _, grads = experts_backward(2 * (o - d[:, None]), cache)
        return ((d[:, None] - o) ** 2).sum(), np.append(grads["W"], grads["b"])

    options = {"gtol": 1e-6, "maxiter": 1000}
    w = minimize(loss_and_gradient, np.zeros(3), jac=True, method="BFGS", options=options).x
    return decision_foot(w[:2], w[2])


def draw(
    ax: "Axes",
    feet: Annotated[np.ndarray, "epochs, E, 2"],
    used: Array,
    targets: Mapping[str, tuple[Array, tuple[float, float]]],
) -> None:
    """All paths in grey, those of the experts in use in colour with their turning points.

    targets   {name: (foot, place of the name)}
    """
    ax.set(xlim=(-0.45, 1.1), ylim=(-0.2, 0.62), aspect="equal")
    ax.set(xlabel="foot of the decision line, $F_1$ (kHz)", ylabel="$F_2$ (kHz)")
    ax.axhline(0, color=plots.GREY, linewidth=0.6, zorder=0)
    ax.axvline(0, color=plots.GREY, linewidth=0.6, zorder=0)
    unused = [e for e in range(feet.shape[1]) if e not in used]
    plots.trajectories(ax, feet[:, unused], ["#B5B5B5"] * len(unused), size=4)
    plots.trajectories(ax, feet[:, used], plots.COLOURS[: len(used)], size=4.5)
    for colour, e in zip(plots.COLOURS, used, strict=False):
        turn = turning_epoch(feet[:, e])
        shift = (0.12, 0.1) if feet[turn, e, 1] > 0.1 else (-0.12, 0.14)
        place = feet[turn, e] + shift
        rule = {"arrowstyle": "-", "color": colour, "linewidth": 1}
        text = {"ha": "center", "color": colour}
        ax.annotate(f"epoch {turn}", feet[turn, e], place, arrowprops=rule, **text)
    rule = {"arrowstyle": "-", "color": plots.BLACK, "linewidth": 1, "shrinkB": 6}
    text = {"ha": "center", "va": "center", "size": 13, "zorder": 9}
    for name, (foot, place) in targets.items():
        ax.plot(*foot, "X", color=plots.BLACK, markersize=11, markeredgecolor="white", zorder=8)
        ax.annotate(name, foot, place, arrowprops=rule, **text)


def turning_epoch(path: Annotated[np.ndarray, "epochs, 2"]) -> int:
    """The epoch at which a foot is farthest out, after a mean over 21 epochs that hides jumps."""
    smooth = np.convolve(path[:, 0], np.full(21, 1 / 21), "valid")
    return smooth[50:].argmax() + 60


def make(job: Job) -> str:
    """Train the mixture and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    data, _, run = train(spec_of(Config(), "8 experts", SEED, LEARNING_RATE), keep=True)
    feet = decision_foot(run.history["W"][..., 0], run.history["b"][..., 0])
    used = np.flatnonzero(active_experts(gate_forward(run.params, data.x_train)[0]))
    front = np.isin(data.vowel_train, (0, 1))
    cases = (front | ~front, front, ~front)
    alone, t0, t1 = (best_foot(data.x_train[part], data.d_train[part]) for part in cases)
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
    distances = " and ".join(f"{closest[e]:.2f}" for e in used)
    return (
        "![feet](jacobs1991_fig3.png)\n\n"
        f"Eight experts, seed {SEED}, learning rate {LEARNING_RATE:g}, {run.epochs} epochs. "
        "Circles: before training; squares: at the end; in colour the "
        f"{len(used)} experts that are in use at the end, with the epoch at which their line "
        f"turned back. Their feet came within {distances} kHz of X = "
        f"({alone[0]:.2f}, {alone[1]:.2f}). T0 and T1 are the best lines for one pair of vowels "
        "alone; the run stops at its error of .08, before the experts reach them."
    )
