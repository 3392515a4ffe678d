"""Table 1 of Jacobs et al. (1991): epochs until the mean squared error is .08, 25 runs per system.

What to see: both mixtures need about half the epochs of the networks. The four means are near the
published ones; the differences within each pair are small compared with the standard deviation of
our runs.
"""

from typing import TYPE_CHECKING

from figures import Job
from moe_np import plots
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.jacobs1991.experiment import PAPER, SYSTEMS, Config, run
from moe_np.experiments.jacobs1991.report import explore_table, report
from moe_np.experiments.jacobs1991.runs import explore
from moe_np.experiments.jacobs1991.sensitivity import eight_against_four

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Jacobs et al. 1991, Table 1: epochs to an error of .08"
ORDER = 10


def draw(ax: "Axes", result: Result) -> None:
    """The runs of each system beside the published mean and standard deviation."""
    published = [(PAPER["table1"][name]["epochs"], PAPER["table1"][name]["sd"]) for name in SYSTEMS]
    values = [runs["epochs"] for runs in result["systems"]]
    plots.runs_beside_published(ax, SYSTEMS, values, published)
    ax.set_xlim(0, None)
    ax.set_xlabel("epochs until the mean squared error is .08")
    epochs = result["summary"][1]["epochs"]
    mean, sd = published[1]
    x = max(max(numbers) for numbers in values[:2]) + 90
    ours = f"ours: mean {epochs['mean']:.0f}, SD {epochs['sd']:.0f}"
    plots.label(ax, x, 0.73, ours, plots.COLOURS[1], ha="left")
    plots.label(ax, x, 1.3, f"published: {mean} ± {sd}", ha="left")
    plots.label(ax, x, 1.0, "one dot per run", plots.GREY, ha="left")


def make(job: Job) -> str:
    """Run the experiment and draw its table; return its section of the report."""
    import matplotlib.pyplot as plt

    config = Config()
    result = run(config, sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, ax = plt.subplots(figsize=(9.5, 5))
        draw(ax, result)
        job.save(fig, "jacobs1991_table1")
    parts = ["![epochs](jacobs1991_table1.png)", report(result)]
    if not job.quick:
        parts.append(repeated_test(eight_against_four(sweep=job.sweep)))
        parts.append("**Learning rates.** " + explore_table(explore(config, job.sweep), config))
    return "\n\n".join(parts)


def repeated_test(tests: Result) -> str:
    """The paragraph on the smallest difference of the table, from `eight_against_four`."""
    below = sum(p < 0.05 for p in tests["p"])
    values = ", ".join(f"{p:.2g}" for p in tests["p"])
    sd_of_4, sd_of_8 = tests["sd"]
    verdict = ""
    if tests["p_all"] < 0.001:
        verdict = "The difference is real, and 25 runs are too few to show it every time. "
    return (
        f"**Are 8 experts faster than 4?** The paper's test, made {len(tests['p'])} times with 25 "
        f"runs each, is below .05 in {below} of them: p = {values}. Over all these runs the "
        f"difference is {tests['difference']:.0f} epochs beside standard deviations of "
        f"{sd_of_4:.0f} and {sd_of_8:.0f}, p = {tests['p_all']:.1g}. {verdict}Whether the 25 runs "
        "of the table show it depends on rounding: that line of the table means no more."
    )
