"""Which tokens, neighbours and domains the experts of a decoder take, each beside chance."""

from moe_np.experiments.specialisation.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.specialisation.report import report
from moe_np.experiments.specialisation.runs import PAPER, SYSTEMS, Config, run_one, summarise

SUMMARY = "which tokens, neighbours and domains the experts of a decoder take, each beside chance"
