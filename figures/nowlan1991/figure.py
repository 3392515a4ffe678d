"""Ten vowels and the regions of the experts (Nowlan and Hinton 1991), and the published errors
beside ours.

What to see in the first picture: each tint is the region in which the gate prefers one expert. With
five experts and a width that begins large, neighbouring vowels share an expert, which tells them
apart. With twenty experts and σ = .25 from the first step on, the competition is so hard that each
expert in use answers with one vowel: the gate does all the work. In the second picture: test errors
of all rows, ours as dots (one per run), published ones as diamonds.
"""

from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, ArrayN, Params
from moe_np.data.speech.ten_vowels import FRONT, ten_vowels
from moe_np.data.speech.vowels import VOWELS
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.nowlan1991.experiment import quick_config, run
from moe_np.experiments.nowlan1991.report import published, report
from moe_np.experiments.nowlan1991.runs import BY_NAME, Config, spec_of, train
from moe_np.mixtures.nowlan1991 import predict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Nowlan and Hinton 1991: ten vowels, mixture against backprop"
ORDER = 120
SEED = 0
TINTS = (
    *("#CFE3F2", "#F8DCC8", "#CFE8DD", "#F2DCE8", "#FAF3C0"),
    *("#D9D9D9", "#E3D5F0", "#FCE6B8", "#D5EEF5", "#E8DDD0"),
)
PANELS = {  # row -> title
    "F1, F2; 5 experts, σ narrows": "5 experts, σ from 2 down to .25",
    "F1, F2": "20 experts, σ = .25",
}
COLOURS = {"mixture": plots.BLUE, "backprop": plots.ORANGE}


def regions(ax: "Axes", params: Params, hertz: Array, vowel: ArrayN) -> None:
    """Tokens, vowels at their medians, and the region in which the gate prefers each expert."""
    ax.set(xlim=(150, 1150), ylim=(550, 3700))
    ax.set(xlabel="first formant $F_1$ (Hz)", ylabel="second formant $F_2$ (Hz)")
    f1, f2 = np.meshgrid(np.linspace(*ax.get_xlim(), 500), np.linspace(*ax.get_ylim(), 500))
    grid = np.stack([f1.ravel(), f2.ravel()], axis=1)
    grid = (grid - hertz.mean(axis=0)) / hertz.std(axis=0)
    top = predict(params, grid, grid)[2].reshape(f1.shape)
    for tint, e in zip(TINTS * 2, np.unique(top), strict=False):
        area = (top == e).astype(float)
        ax.contourf(f1, f2, area, levels=[0.5, 1.5], colors=[tint], zorder=0)
        ax.contour(f1, f2, area, levels=[0.5], colors="white", linewidths=1.5, zorder=1)
    for i, (name, (ipa, _)) in enumerate(VOWELS.items()):
        tokens = hertz[vowel == i]
        colour = plots.BLUE if name in FRONT else plots.BLACK
        ax.scatter(*tokens.T, s=7, color=colour, alpha=0.35, linewidths=0, zorder=2)
        plots.label(ax, *np.median(tokens, axis=0), ipa, colour, size=20, weight="bold")


def errors(ax: "Axes", result: Result) -> None:
    """A line per row and system: the test error of every run, and the published one."""
    jitter = np.random.default_rng(0)
    ticks = {}
    y = 0
    for cell in result["cells"]:
        row = BY_NAME[cell["row"]]
        y += 1.1 if cell["system"] == "mixture" else 0.42
        if cell["system"] == "mixture":
            ticks[row.name] = y + (0.2 if len(row.systems) == 2 else 0)
        colour = COLOURS[cell["system"]]
        test = [run["test"] for run in cell["runs"]]
        heights = y + jitter.uniform(-0.1, 0.1, len(test))
        ax.scatter(test, heights, s=24, color=colour, alpha=0.5, linewidths=0)
        wanted = published(cell["system"], row.published).get("test")
        if wanted is not None:
            edge = {"markeredgecolor": colour, "markeredgewidth": 2}
            ax.plot(wanted, y, "D", color=plots.BLACK, markersize=9, zorder=5, **edge)
    ax.set_yticks(list(ticks.values()), list(ticks), size=11)
    ax.set(ylim=(y + 0.7, 0.3), xlim=(0, None), xlabel="test error, % (diamond: published)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    place = {"transform": ax.transAxes, "ha": "right", "va": "top", "weight": "bold"}
    for height, (system, colour) in zip((0.14, 0.10), COLOURS.items(), strict=True):
        ax.text(0.98, height, system, color=colour, **place)


def make(job: Job) -> str:
    """Run the experiment and draw both pictures; return their section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    rates = {(cell["row"], cell["system"]): cell["lr"] for cell in result["cells"]}
    config = quick_config(Config()) if job.quick else Config()
    tokens, _ = ten_vowels()
    with plots.style(), one_blas_thread():
        fig, axes = plt.subplots(1, 2, figsize=(14, 6.4), sharey=True)
        for ax, (row, title) in zip(axes, PANELS.items(), strict=True):
            spec = spec_of(config, row, "mixture", SEED, rates["F1, F2", "mixture"])
            regions(ax, train(spec)[0], tokens.hertz, tokens.vowel)
            ax.set_title(title)
        axes[1].set_ylabel("")
        job.save(fig, "nowlan1991")
        fig, ax = plt.subplots(figsize=(11, 7))
        errors(ax, result)
        job.save(fig, "nowlan1991_errors")
    return (
        "![regions of the experts](nowlan1991.png)\n\n"
        f"Seed {SEED}; front vowels in blue. Training tokens: the first repetition.\n\n"
        "![test errors](nowlan1991_errors.png)\n\n" + report(result)
    )
