"""Ten vowels and the regions of the experts (Nowlan and Hinton 1991), and the published errors
beside ours.

What to see in the first picture: each tint is the region in which the gate prefers one expert. With
five experts and a width that starts large, neighbouring vowels share one and the expert tells them
apart. With twenty and the paper's σ = .25 from the start the competition is so hard that each
expert in use answers with one vowel: the gate does it all. In the second: test errors of all rows,
ours as dots (one a run), published ones as diamonds.
"""

import numpy as np

from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.data.speech import ten_vowels
from moe_np.data.speech.vowels import VOWELS
from moe_np.experiments.nowlan1991 import experiment as vowels
from moe_np.mixtures import nowlan1991 as competing

TITLE = "Nowlan and Hinton 1991: ten vowels, mixture against backprop"
ORDER = 120
SEED = 0
TINTS = (
    "#CFE3F2",
    "#F8DCC8",
    "#CFE8DD",
    "#F2DCE8",
    "#FAF3C0",
    "#D9D9D9",
    "#E3D5F0",
    "#FCE6B8",
    "#D5EEF5",
    "#E8DDD0",
)
PANELS = ("F1, F2; 5 experts, σ narrows", "F1, F2")


def regions(ax, params, hertz, vowel):
    """Tokens, vowels at their medians, tint and border of where the gate prefers which expert."""
    ax.set(
        xlim=(150, 1150),
        ylim=(550, 3700),
        xlabel="first formant $F_1$ (Hz)",
        ylabel="second formant $F_2$ (Hz)",
    )
    mean, sd = hertz.mean(axis=0), hertz.std(axis=0)
    f1, f2 = np.meshgrid(np.linspace(*ax.get_xlim(), 500), np.linspace(*ax.get_ylim(), 500))
    grid = (np.stack([f1.ravel(), f2.ravel()], axis=1) - mean) / sd
    top = competing.predict(params, grid, grid)[2].reshape(f1.shape)
    for tint, e in zip(TINTS * 2, np.unique(top), strict=False):
        ax.contourf(f1, f2, (top == e).astype(float), levels=[0.5, 1.5], colors=[tint], zorder=0)
        ax.contour(
            f1, f2, (top == e).astype(float), levels=[0.5], colors="white", linewidths=1.5, zorder=1
        )
    for i, (name, (ipa, _)) in enumerate(VOWELS.items()):
        own, colour = hertz[vowel == i], plots.BLUE if name in ten_vowels.FRONT else plots.BLACK
        ax.scatter(*own.T, s=7, color=colour, alpha=0.35, linewidths=0, zorder=2)
        plots.label(ax, *np.median(own, axis=0), ipa, colour, size=20, weight="bold")


def errors(ax, result):
    """A line for each row of the table and each system: the test error of every run, and the
    published one.
    """
    ticks, y, jitter = [], 0, np.random.default_rng(0)
    for cell in result["cells"]:
        first = cell["system"] == "mixture"
        y += 1.1 if first else 0.42
        colour = plots.BLUE if first else plots.ORANGE
        test = [r["test"] for r in cell["runs"]]
        ax.scatter(
            test,
            y + jitter.uniform(-0.1, 0.1, len(test)),
            s=24,
            color=colour,
            alpha=0.5,
            linewidths=0,
        )
        published = vowels.BY_NAME[cell["row"]].published
        theirs = published and vowels.PAPER["generalisation"][published][0 if first else 1]
        if theirs:
            ax.plot(
                theirs,
                y,
                "D",
                color=plots.BLACK,
                markersize=9,
                markeredgecolor=colour,
                markeredgewidth=2,
                zorder=5,
            )
        if first:
            ticks.append(
                (y + (0.2 if len(vowels.BY_NAME[cell["row"]].systems) == 2 else 0), cell["row"])
            )
    ax.set_yticks(*zip(*ticks, strict=True), size=11)
    ax.set(ylim=(y + 0.7, 0.3), xlim=(0, None), xlabel="test error, % (diamond: published)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.text(
        0.98,
        0.14,
        "mixture",
        color=plots.BLUE,
        transform=ax.transAxes,
        ha="right",
        va="top",
        weight="bold",
    )
    ax.text(
        0.98,
        0.10,
        "backprop",
        color=plots.ORANGE,
        transform=ax.transAxes,
        ha="right",
        va="top",
        weight="bold",
    )


def make(job):
    import matplotlib.pyplot as plt

    result = vowels.run(sweep=job.sweep, quick=job.quick)
    lr = next(c["lr"] for c in result["cells"] if c["row"] == "F1, F2" and c["system"] == "mixture")
    config = vowels.quick_config(vowels.Config()) if job.quick else vowels.Config()
    hertz, vowel = ten_vowels.ten_vowels()[0][-1], ten_vowels.ten_vowels()[0].vowel
    with plots.style(), one_blas_thread():
        fig, axes = plt.subplots(1, 2, figsize=(14, 6.4), sharey=True)
        for ax, row in zip(axes, PANELS, strict=True):
            params, _, _ = vowels.train(vowels.spec_of(config, row, "mixture", SEED, lr))
            regions(ax, params, hertz, vowel)
        axes[0].set_title("5 experts, σ from 2 down to .25")
        axes[1].set_title("20 experts, σ = .25")
        axes[1].set_ylabel("")
        job.save(fig, "nowlan1991")
        fig, ax = plt.subplots(figsize=(11, 7))
        errors(ax, result)
        job.save(fig, "nowlan1991_errors")
    return (
        "![regions of the experts](nowlan1991.png)\n\n"
        f"Seed {SEED}; front vowels in blue. Training tokens: the first repetition.\n\n"
        "![test errors](nowlan1991_errors.png)\n\n" + vowels.table(result)
    )
