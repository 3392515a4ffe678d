"""Do mixtures generalise? Eight claims of articles on new data, beside dense nets alike."""

from moe_np.experiments.generalisation.experiment import (
    OPTIONS,
    PAPER,
    SMOKE,
    SYSTEMS,
    run,
    run_one,
    specs,
    summarise,
)
from moe_np.experiments.generalisation.report import report
from moe_np.experiments.generalisation.runs import Config

SUMMARY = "do mixtures generalise? eight claims of articles on test data, beside dense nets alike"
