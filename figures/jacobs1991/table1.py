"""Table 1 of Jacobs et al. (1991): how many epochs until the mean squared error is .08, 25 runs a
system.

What to see: both mixtures are done in about half the epochs of the nets. The four means are near
the published ones; the differences inside each pair are small beside the spread of our runs.
"""

from moe_np import plots
from moe_np.experiments import jacobs1991
from moe_np.experiments.jacobs1991 import report, runs, sensitivity

TITLE = "Jacobs et al. 1991, Table 1: epochs to an error of .08"
ORDER = 10


def draw(ax, result):
    published = [jacobs1991.PAPER["table1"][name] for name in jacobs1991.SYSTEMS]
    values = [one["epochs"] for one in result["systems"]]
    plots.runs_beside_published(ax, jacobs1991.SYSTEMS, values, [(p["epochs"], p["sd"]) for p in published])
    ax.set_xlim(0, None)
    ax.set_xlabel("epochs until the mean squared error is .08")
    ours, theirs = result["summary"][1]["epochs"], published[1]
    right = max(max(v) for v in values[:2]) + 90
    plots.label(
        ax,
        right,
        0.73,
        f"ours: mean {ours['mean']:.0f}, SD {ours['sd']:.0f}",
        plots.COLOURS[1],
        ha="left",
    )
    plots.label(ax, right, 1.3, f"published: {theirs['epochs']} ± {theirs['sd']}", ha="left")
    plots.label(ax, right, 1.0, "a dot a run", plots.GREY, ha="left")


def make(job):
    import matplotlib.pyplot as plt

    config = jacobs1991.Config()
    result = jacobs1991.run(config, sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, ax = plt.subplots(figsize=(9.5, 5))
        draw(ax, result)
        job.save(fig, "jacobs1991_table1")
    parts = ["![epochs](jacobs1991_table1.png)", jacobs1991.report(result)]
    if not job.quick:
        parts.append(again(sensitivity.eight_against_four(sweep=job.sweep)))
        parts.append(
            "**Learning rates.** " + report.explore_table(runs.explore(config, job.sweep), config)
        )
    return "\n\n".join(parts)


def again(found):
    """The sentences on the smallest difference of the table."""
    below = sum(p < 0.05 for p in found["p"])
    verdict = (
        " The difference is real, and 25 runs are too few to see it every time."
        if found["p_all"] < 0.001
        else ""
    )
    return (
        f"**Are 8 experts faster than 4?** The paper's test, made {len(found['p'])} times with 25 runs each, is below "
        f".05 in {below} of them: p = {', '.join(f'{p:.2g}' for p in found['p'])}. Over all these runs the difference "
        f"is {found['difference']:.0f} epochs beside standard deviations of {found['sd'][0]:.0f} and "
        f"{found['sd'][1]:.0f}, p = {found['p_all']:.1g}.{verdict} "
        "Whether the table's own 25 show it is decided by rounding: no more should be read into that line."
    )
