"""Text classification: which part of the Bible a passage is from, in two languages."""

from moe_np.experiments.text_classification.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.text_classification.report import report
from moe_np.experiments.text_classification.runs import (
    PAPER,
    SYSTEMS,
    Config,
    run_one,
    summarise,
)

SUMMARY = "text classification: passages by their source, in two languages, dense beside mixture"
