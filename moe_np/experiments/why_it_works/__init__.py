"""Why a mixture of experts works: twelve claims of articles and papers, each against numbers."""

from moe_np.experiments.why_it_works.experiment import (
    OPTIONS,
    PAPER,
    SMOKE,
    SYSTEMS,
    run,
    run_one,
    specs,
    summarise,
)
from moe_np.experiments.why_it_works.questions import Config
from moe_np.experiments.why_it_works.report import report

SUMMARY = "why a mixture works: twelve claims of articles and papers, each against numbers"
