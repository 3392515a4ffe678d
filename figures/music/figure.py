"""Chorales: the loss in training, and a chorale that the decoder continues; with MIDI files.

What to see: left, the loss on held-out chorales over the updates, a line per seed. Right, the
beginning of a chorale that was held out, and after the dashed line what the decoder with experts
draws: do voices go by steps, and do they stay in their ranges? music_MODEL.mid is to listen to.
"""

from typing import TYPE_CHECKING

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.data.music import chorales, midi
from moe_np.experiments.common.dense_and_mixture import MIXTURE, MODELS
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.music.experiment import run
from moe_np.experiments.music.report import report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Music: Bach's chorales, dense beside mixture"
ORDER = 420
COLOURS = dict(zip(MODELS, (plots.GREY, plots.BLUE, plots.ORANGE), strict=True))


def losses(ax: "Axes", result: Result) -> None:
    """The held-out loss over the updates."""
    every = result["config"]["sizes"]["every"]
    for run_of in result["runs"]:
        values = run_of["validation"][1:]
        label = run_of["system"] if run_of["seed"] == 0 else None
        updates = every * np.arange(1, len(values) + 1)
        ax.plot(updates, values, color=COLOURS[run_of["system"]], linewidth=1.2, label=label)
    ax.set(xlabel="update", ylabel="nats per note", title="Held-out chorales")
    ax.legend(fontsize=10)


def continued(ax: "Axes", continuation: Result) -> None:
    """The pitches of the four voices over time."""
    grid = np.array(continuation["grid"], float)
    grid[grid == chorales.REST] = np.nan
    time = np.arange(grid.shape[1] + 1)
    for voice, colour, pitches in zip(chorales.VOICES, plots.COLOURS, grid, strict=False):
        ax.stairs(pitches, time, baseline=None, color=colour, linewidth=2, label=voice)
    ax.axvline(continuation["prompt"], color=plots.BLACK, linestyle="--", linewidth=1)
    octaves = range(36, 85, 12)
    ax.set_yticks(octaves, [chorales.note_name(pitch) for pitch in octaves])
    ax.set(xlabel="eighth note", title=f"{continuation['name']}, continued by the mixture")
    ax.legend(fontsize=10, ncols=4, loc="lower center")
    ax.set_ylim(30, 82)


def make(job: Job) -> str:
    """Run the experiment, write the figure and the MIDI files; return a section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    for run_of in result["runs"]:
        if "continuation" in run_of:
            name = run_of["system"].replace(", ", "_").replace(" ", "_")
            midi.save(job.out / f"music_{name}.mid", run_of["continuation"]["grid"])
    first = next(r for r in result["runs"] if r["system"] == MIXTURE and "continuation" in r)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(15, 5), width_ratios=(2, 3))
        losses(axes[0], result)
        continued(axes[1], first["continuation"])
        job.save(fig, "music")
    return "![music](music.png)\n\n" + report(result)
