"""Time per token of a sparse layer against dense ones, from 1 to 16,384 tokens at a time."""

from moe_np.experiments.batch_curve.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.batch_curve.report import report
from moe_np.experiments.batch_curve.runs import PAPER, Config, run_one, summarise

SUMMARY = "time per token of a sparse layer against dense ones, by the size of the batch"
