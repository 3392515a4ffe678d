"""Fig. 2 of Jacobs et al. (1991): the vowels and the lines of a trained mixture of four experts.

The paper draws the decision lines of the three networks that matter, and one line of the gating
network between two of them. What to see: one expert tells [i] from [ɪ], another [ʌ] from [ɑ], and
the gating network divides the plane between the two pairs. In our runs exactly two experts are in
use; the lines of the others have no effect.
"""

from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.base.types import Array, Params
from moe_np.data.speech.vowels import VowelTask
from moe_np.experiments.jacobs1991.runs import Config, percent_correct, spec_of, train
from moe_np.mixtures.jacobs1991 import active_experts, gate_forward

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Jacobs et al. 1991, Fig. 2: what the experts and the gate learn"
ORDER = 15
NAMES = ("[i] heed", "[ɪ] hid", "[ɑ] hod", "[ʌ] hud")
PLACES = ((0.27, 3.22), (0.62, 2.42), (1.05, 1.08), (0.42, 1.04))
TINTS = ("#EAF3FA", "#FDF3E7", "#EDF7F2", "#FAF0F5")
SEED = 0


def draw(ax: "Axes", data: VowelTask, params: Params) -> Array:
    """Training cases, and the decision lines of the experts: thick for those in use.

    The shading is the choice of the gating network. Returns the numbers of the experts in use, the
    one of the front vowels first.
    """
    ax.set(xlim=(0.15, 1.3), ylim=(0.6, 3.7))
    ax.set(xlabel="first formant $F_1$ (kHz)", ylabel="second formant $F_2$ (kHz)")
    gate = gate_forward(params, data.x_train)[0]
    used = np.flatnonzero(active_experts(gate))
    mean_f2 = (gate @ np.eye(gate.shape[1])[:, used]).T @ data.x_train[:, 1]
    used = used[np.argsort(-mean_f2)]  # front vowels have a high second formant
    shade(ax, params, used)
    plots.labelled_points(ax, data.x_train, data.vowel_train, NAMES, places=PLACES)
    lines = [(params["W"][e, :, 0], params["b"][e, 0]) for e in range(gate.shape[1])]
    for e in set(range(gate.shape[1])) - set(used):
        plots.straight_line(ax, *lines[e], color=plots.GREY, linewidth=1.2, linestyle=":")
    for e, x in zip(used, (0.53, 1.08), strict=False):
        plots.straight_line(ax, *lines[e], color=plots.BLACK, linewidth=2.5)
        plots.text_along_line(ax, *lines[e], x, f"expert {e + 1}: $o$ = ½", gap=12)
    if len(used) == 2:
        a, b = used
        line = params["U"][:, a] - params["U"][:, b], params["c"][a] - params["c"][b]
        plots.straight_line(ax, *line, color=plots.BLACK, linewidth=2.5, linestyle="--")
        text = f"gate: expert {a + 1} above, {b + 1} below"
        plots.text_along_line(ax, *line, 1.08, text, gap=12)
    plots.label(ax, 1.02, 0.7, "experts not in use", plots.GREY, size=12, ha="left")
    return used


def shade(ax: "Axes", params: Params, used: Array) -> None:
    """A light tint where the gating network prefers each of the experts in use."""
    x, y = np.meshgrid(np.linspace(*ax.get_xlim(), 400), np.linspace(*ax.get_ylim(), 400))
    p = gate_forward(params, np.stack([x.ravel(), y.ravel()], axis=1))[0]
    preferred = p.argmax(axis=1).reshape(x.shape)
    for tint, e in zip(TINTS, used, strict=False):
        area = (preferred == e).astype(float)
        ax.contourf(x, y, area, levels=[0.5, 1.5], colors=[tint], zorder=0)


def make(job: Job) -> str:
    """Train the mixture and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    data, kind, run = train(spec_of(Config(), "4 experts", SEED))
    with plots.style():
        fig, ax = plt.subplots(figsize=(8, 6.4))
        used = draw(ax, data, run.params)
        job.save(fig, "jacobs1991_fig2")
    train_percent = percent_correct(run.params, data.x_train, data.d_train, kind)
    test_percent = percent_correct(run.params, data.x_test, data.d_test, kind)
    return (
        "![decision lines](jacobs1991_fig2.png)\n\n"
        f"Four experts, seed {SEED}, after {run.epochs} epochs: {train_percent:.1f} % of the "
        f"training and {test_percent:.1f} % of the test tokens are right, with {len(used)} of 4 "
        "experts in use. Target 1 is [i] and [ʌ], 0 is [ɪ] and [ɑ]. Published: three networks with "
        "decision lines, one expert idle, one line of the gating network between two of them. The "
        "text under Table 1 says in how many of all runs more than two experts are in use."
    )
