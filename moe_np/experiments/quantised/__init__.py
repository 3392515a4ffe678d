"""Trained experts in 8, 4, 3 and 2 bits: memory against held-out loss."""

from moe_np.experiments.quantised.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.quantised.report import report
from moe_np.experiments.quantised.runs import PAPER, Config, run_one, summarise

SUMMARY = "trained experts in 8, 4, 3 and 2 bits: memory against held-out loss"
