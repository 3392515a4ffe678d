"""Passages of the Bible by their source: dense beside mixture, and who takes what.

What to see: left, whether the mixture lies to the right of both dense networks; a point is a seed.
Right, the share of the passages of every language and part that each expert takes, first seed: do
the experts divide the passages by language, by part, or by both?
"""

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.experiments.common.dense_and_mixture import MIXTURE, MODELS
from moe_np.experiments.text_classification.experiment import run
from moe_np.experiments.text_classification.passages import LANGUAGES, PARTS
from moe_np.experiments.text_classification.report import report

TITLE = "Text classification: passages by their source"
ORDER = 430
COLOURS = (plots.GREY, plots.BLUE, plots.ORANGE)


def make(job: Job) -> str:
    """Run the experiment and draw the figure; return its section of the report."""
    import matplotlib.pyplot as plt

    result = run(sweep=job.sweep, quick=job.quick)
    with plots.style():
        fig, (points, image) = plt.subplots(1, 2, figsize=(14, 5.5), width_ratios=(2, 3))
        for row, model in enumerate(MODELS):
            right = [r["accuracy"] for r in result["runs"] if r["system"] == model]
            points.plot(right, np.full(len(right), row), "o", color=COLOURS[row])
            points.plot(np.mean(right), row, "|", color=plots.BLACK, markersize=18)
        points.set_yticks(range(len(MODELS)), [model.replace(", ", ",\n") for model in MODELS])
        points.set_ylim(len(MODELS) - 0.5, -0.5)
        points.set(xlabel="percent right", title="Passages of held-out chapters")
        first = next(r for r in result["runs"] if r["system"] == MIXTURE)
        counts = np.array(first["counts"])  # experts, languages, parts
        shares = (100 * counts / np.maximum(counts.sum(axis=0), 1)).reshape(len(counts), -1).T
        drawn = image.imshow(shares, cmap="viridis", vmin=0, vmax=100, aspect="auto")
        fig.colorbar(drawn, ax=image, label="percent")
        names = [f"{part}, {language.title()}" for language in LANGUAGES for part in PARTS]
        image.set_yticks(range(len(names)), names, fontsize=9)
        image.axhline(len(PARTS) - 0.5, color="white", linewidth=2)
        image.set(xlabel="expert", title="Who takes what")
        job.save(fig, "text_classification")
    return "![text classification](text_classification.png)\n\n" + report(result)
