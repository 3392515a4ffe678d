"""Time per token of a sparse layer against dense ones, by the number of tokens at a time.

What to see: left, each system's time per token with the line of the model. In the middle the sparse
layer reads all of its experts for few tokens each. Right, the ratio of the times with the boundary
at 1, below which the sparse layer is faster, and the share of the experts that are touched.
"""

from figures import Job
from moe_np import plots
from moe_np.experiments.batch_curve.experiment import run
from moe_np.experiments.batch_curve.report import report

TITLE = "When a sparse layer is faster than a dense one"
ORDER = 180
TIMED = True


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, axes = plt.subplots(1, 2, figsize=(13, 4.6))
        for (system, ours), colour in zip(result["summary"].items(), plots.COLOURS, strict=False):
            times = [1e3 * t for t in ours["median"]]
            axes[0].loglog(ours["tokens"], times, "o", color=colour, label=system)
            line = [1e3 * t for t in result["model"]["seconds"][system]]
            axes[0].loglog(ours["tokens"], line, color=colour, linewidth=1.2)
        axes[0].set(xlabel="tokens at a time", ylabel="ms per token", title="Times; lines: model")
        axes[0].legend()
        ratios = zip(result["ratios"].items(), plots.COLOURS[1:], strict=False)
        for (system, ratio), colour in ratios:
            tokens = result["summary"][system]["tokens"]
            axes[1].semilogx(tokens, ratio, "o-", color=colour, label=f"sparse / {system}")
        share = [n / result["config"]["experts"] for n in result["expected"]]
        tokens = result["config"]["tokens"]
        axes[1].semilogx(tokens, share, ":", color=plots.GREY, label="share of experts touched")
        axes[1].axhline(1, color=plots.BLACK, linewidth=1)
        axes[1].set_yscale("log")
        axes[1].set(xlabel="tokens at a time", title="Below the line the sparse layer is faster")
        axes[1].legend(fontsize=10)
        job.save(fig, "batch_curve")
    return "![batch curve](batch_curve.png)\n\n" + report(result)
