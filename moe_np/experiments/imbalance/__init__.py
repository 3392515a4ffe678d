"""Expert parallelism with an uneven load: the time of a step against the skew of the router."""

from moe_np.experiments.imbalance.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.imbalance.report import report
from moe_np.experiments.imbalance.runs import PAPER, Config, run_one, summarise

SUMMARY = "expert parallelism: the time of a training step against the skew of the load"
