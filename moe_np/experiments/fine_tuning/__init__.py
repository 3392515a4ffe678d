"""Fine-tuning on few examples: dense against sparse, both tuned, and remedies."""

from moe_np.experiments.fine_tuning.experiment import (
    OPTIONS,
    SMOKE,
    run,
    specs,
    summarise,
)
from moe_np.experiments.fine_tuning.report import report
from moe_np.experiments.fine_tuning.runs import PAPER, SYSTEMS, Config, run_one

SUMMARY = "fine-tuning on few examples: dense against sparse, both tuned, and remedies"
