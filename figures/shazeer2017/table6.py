"""Table 6 of Shazeer et al. (2017): a gate with and without balance losses, on an associative
memory instead of a text.

What to see: without a loss a few experts do most of the work and the memory holds less. The CVs
fall as in the paper, but with weights of 1 only as long as the noise is on.
"""

from moe_np import plots
from moe_np.experiments.shazeer2017 import experiment as shazeer

TITLE = "Shazeer et al. 2017, Table 6: the balance losses switched on and off"
ORDER = 105


def dots(ax, y, runs, name):
    """Ours with noise (filled) and without (hollow), a dot a run."""
    for noise, face in (("with noise", plots.BLUE), ("without noise", "white")):
        own = [run[noise][name] for run in runs]
        shift = -0.12 if noise == "with noise" else 0.12
        ax.scatter(
            own,
            [y + shift] * len(own),
            s=60,
            facecolors=face,
            edgecolors=plots.BLUE,
            linewidths=1.6,
            zorder=3,
        )


def draw(axes, result):
    rows = [row for row in result["rows"] if row["common"]]
    published = result["paper"]["table6"]
    for ax, name, column in zip(
        axes, ("cv_load", "max_mean", "perplexity"), (4, 5, 2), strict=True
    ):
        for y, (row, theirs) in enumerate(zip(rows, published, strict=True)):
            dots(ax, y, row["runs"], name)
            if name != "perplexity":  # that column belongs to another task
                ax.scatter(theirs[column], y - 0.34, s=50, marker="D", c=plots.BLACK, zorder=3)
            ax.axhline(y + 0.5, color=plots.GREY, linewidth=0.5, alpha=0.5)
        ax.set_xscale("log")
        ax.minorticks_off()
    axes[0].set_yticks(range(len(rows)), [shazeer.pair(row) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.6)
    axes[0].set_ylabel("weights of importance and load")
    for ax, ticks in zip(
        axes, ((0.02, 0.1, 0.5, 2), (1, 2, 4, 8, 16), (8, 16, 32, 64)), strict=True
    ):
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.tick_params(axis="y", length=0)
    axes[0].set_title("CV of the load")
    axes[1].set_title("most loaded expert / mean")
    axes[2].set_title("perplexity of the stored keys")


def key(ax):
    marks = (
        ("published", {"marker": "D", "c": plots.BLACK}),
        ("ours, noise on", {"c": plots.BLUE}),
        ("ours, noise off", {"facecolors": "white", "edgecolors": plots.BLUE}),
    )
    for i, (text, mark) in enumerate(marks):
        ax.scatter(0.5, 0.632 - 0.058 * i, s=60, transform=ax.transAxes, **mark)
        ax.text(0.56, 0.632 - 0.058 * i, text, fontsize=12, va="center", transform=ax.transAxes)


def specs(job):
    return shazeer.run_one, shazeer.plan(quick=job.quick)[3]


def make(job):
    import matplotlib.pyplot as plt

    result = shazeer.run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(13, 5.5), sharey=True)
        draw(axes, result)
        key(axes[1])
        job.save(fig, "shazeer2017_table6")
    return "![balance and quality](shazeer2017_table6.png)\n\n" + shazeer.table(result)
