"""Distillation of a mixture into a dense decoder of equal operations: what is kept of the gain."""

from moe_np.experiments.distillation.experiment import (
    OPTIONS,
    PAPER,
    SMOKE,
    SYSTEMS,
    Config,
    run,
    run_one,
    specs,
    summarise,
)
from moe_np.experiments.distillation.report import report

SUMMARY = "distillation: how much of a mixture's gain a dense decoder of equal operations keeps"
