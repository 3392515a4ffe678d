"""Fig. 2 of Jacobs et al. (1991): the vowels, the decision lines of a trained mixture of four, and
the gate's line.

The paper draws the lines of three nets that matter, and one gate line between two of them. What to
see: one expert tells [i] from [ɪ], another [ʌ] from [ɑ], and the gate cuts the plane between the
two pairs. In our runs exactly two experts are in use; the others are left with a line that nobody
asks about.
"""

import numpy as np

from moe_np import plots
from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.mixtures import jacobs1991 as model

TITLE = "Jacobs et al. 1991, Fig. 2: what the experts and the gate learn"
ORDER = 15
NAMES = ("[i] heed", "[ɪ] hid", "[ɑ] hod", "[ʌ] hud")
PLACES = ((0.27, 3.22), (0.62, 2.42), (1.05, 1.08), (0.42, 1.04))
SEED = 0


def draw(ax, data, params):
    """Training tokens, lines of the experts in use (thick) and of the others (thin), the gate's
    choice as shading.
    """
    ax.set(
        xlim=(0.15, 1.3),
        ylim=(0.6, 3.7),
        xlabel="first formant $F_1$ (kHz)",
        ylabel="second formant $F_2$ (kHz)",
    )
    gate = model.gate_forward(params, data.x_train)[0]
    used = np.flatnonzero(model.active_experts(gate))
    used = used[
        np.argsort(-(gate @ np.eye(gate.shape[1])[:, used]).T @ data.x_train[:, 1])
    ]  # front vowels first
    shade(ax, params, used)
    plots.labelled_points(ax, data.x_train, data.vowel_train, NAMES, places=PLACES)
    lines = [(params["W"][e, :, 0], params["b"][e, 0]) for e in range(gate.shape[1])]
    for e in set(range(gate.shape[1])) - set(used):
        plots.straight_line(ax, *lines[e], color=plots.GREY, linewidth=1.2, linestyle=":")
    for e, x, gap in zip(used, (0.53, 1.08), (12, 12), strict=False):
        plots.straight_line(ax, *lines[e], color=plots.BLACK, linewidth=2.5)
        plots.text_along_line(ax, *lines[e], x, f"expert {e + 1}: $o$ = ½", gap=gap)
    if len(used) == 2:
        a, b = used
        gate_line = params["U"][:, a] - params["U"][:, b], params["c"][a] - params["c"][b]
        plots.straight_line(ax, *gate_line, color=plots.BLACK, linewidth=2.5, linestyle="--")
        plots.text_along_line(ax, *gate_line, 1.08, f"gate: expert {a + 1} above, {b + 1} below", gap=12)
    plots.label(ax, 1.02, 0.7, "experts not in use", plots.GREY, size=12, ha="left")
    return used


def shade(ax, params, used):
    """Light tint where the gate prefers each of the experts in use."""
    x, y = np.meshgrid(np.linspace(*ax.get_xlim(), 400), np.linspace(*ax.get_ylim(), 400))
    p = model.gate_forward(params, np.stack([x.ravel(), y.ravel()], axis=1))[0]
    tints = ("#EAF3FA", "#FDF3E7", "#EDF7F2", "#FAF0F5")
    top = p.argmax(axis=1).reshape(x.shape)
    for tint, e in zip(tints, used, strict=False):
        ax.contourf(x, y, (top == e).astype(float), levels=[0.5, 1.5], colors=[tint], zorder=0)


def make(job):
    import matplotlib.pyplot as plt

    spec = vowel_runs.spec_of(vowel_runs.Config(), "4 experts", SEED)
    data, kind, run = vowel_runs.train(spec)
    with plots.style():
        fig, ax = plt.subplots(figsize=(8, 6.4))
        used = draw(ax, data, run.params)
        job.save(fig, "jacobs1991_fig2")
    train, test = (
        vowel_runs.percent_correct(run.params, *part, kind) for part in (data[:2], data[2:4])
    )
    return (
        "![decision lines](jacobs1991_fig2.png)\n\n"
        f"Four experts, seed {SEED}, after {run.epochs} epochs: {train:.1f} % of the training and {test:.1f} % of "
        f"the test tokens are right, with {len(used)} of 4 experts in use. Target 1 is [i] and [ʌ], 0 is [ɪ] and [ɑ]. "
        "Published: three nets with decision lines, one expert idle, one gate line between two of them. "
        "The text under Table 1 says in how many of all runs more than two experts are in use."
    )
