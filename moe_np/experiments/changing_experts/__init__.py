"""Experts are removed, merged and added after training: what a mixture loses and what it learns."""

from moe_np.experiments.changing_experts.experiment import (
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
from moe_np.experiments.changing_experts.report import report

SUMMARY = "experts removed, merged and added after training: what is lost, learnt and forgotten"
