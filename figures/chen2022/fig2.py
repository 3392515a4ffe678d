"""Fig. 2 of Chen et al. (2022): dispatch entropy along training, settings 1 and 2, mean and 95 %
band over ten runs.

What to see: both kinds start at ln 4, where every expert gets all four clusters alike. Cubic
experts part the clusters within a hundred passes or so; linear experts hardly ever do, though they
learn the task better than a single network.
"""

import math

import numpy as np
from scipy import stats

from moe_np import plots
from moe_np.experiments import chen2022
from moe_np.experiments.common.reports import mean_sd

TITLE = "Chen et al. 2022, Fig. 2: dispatch entropy along training"
ORDER = 45
MODELS = {
    "moe_linear": (plots.ORANGE, "linear experts"),
    "moe_nonlinear": (plots.BLUE, "cubic experts"),
}


def curves(runs):
    """Entropy of every run and pass (runs, passes); a run that the rule has stopped keeps its last
    value.
    """
    length = max(map(len, runs))
    return np.array([run + run[-1:] * (length - len(run)) for run in runs])


def band(values):
    """Mean over runs and half the width of its 95 % interval (Student's t)."""
    n = len(values)
    half = (
        stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / math.sqrt(n)
        if n > 1
        else 0 * values[0]
    )
    return values.mean(axis=0), half


def draw(ax, result):
    for model, (colour, name) in MODELS.items():
        mean, half = band(curves(result["models"][model]["entropy_per_epoch"]))
        passes = np.arange(len(mean))
        ax.fill_between(passes, mean - half, mean + half, color=colour, alpha=0.25, linewidth=0)
        ax.plot(passes, mean, color=colour, linewidth=2.5)
        at = int(0.62 * len(mean))
        plots.label(
            ax,
            at,
            mean[at] + (-0.14 if model == "moe_linear" else 0.14),
            name,
            colour,
            size=15,
            weight="bold",
        )
    ax.axhline(math.log(4), color=plots.GREY, linewidth=1, linestyle=":")
    ax.set(title=f"setting {result['setting']}", xlabel="pass", xlim=(0, None), ylim=(0, 1.5))


def specs(job):
    plans = [chen2022.specs(setting=s, only=tuple(MODELS), quick=job.quick) for s in (1, 2)]
    return chen2022.run_one, [spec for plan in plans for spec in plan]


def make(job):
    import matplotlib.pyplot as plt

    results = [
        chen2022.run(setting=s, only=tuple(MODELS), sweep=job.sweep, quick=job.quick)
        for s in (1, 2)
    ]
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
        for ax, result in zip(axes, results, strict=True):
            draw(ax, result)
        axes[0].set_ylabel("dispatch entropy (nats)")
        plots.label(
            axes[0],
            8,
            math.log(4) + 0.06,
            "ln 4: all experts get all clusters alike",
            plots.GREY,
            size=11,
            ha="left",
        )
        job.save(fig, "chen2022_fig2")
    rows = [
        f"| {r['setting']} | {name} | {mean_sd(r['summary'][m]['entropy'], 3)} "
        f"| {mean_sd(r['paper'][m]['entropy'], 3)} |"
        for r in results
        for m, (_, name) in MODELS.items()
    ]
    return (
        "![entropy along training](chen2022_fig2.png)\n\n"
        f"Variant `code`, {len(results[0]['seeds'])} runs: mean and 95 % interval of the mean "
        "(Student's t). "
        "Entropy of the training samples as the noisy router sent them; a run that the stop rule "
        "has ended keeps "
        "its last value. The published curves (500 passes) come from notebooks of their own that "
        "divide each array "
        "by its own norm and draw the routing noise once; here are the algorithm and the runs of "
        "Table 1. At the "
        "last pass:\n\n| setting | experts | ours | published, Table 1 |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )
