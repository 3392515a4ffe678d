"""English verses into Spanish ones: two models with experts, each against its dense counterpart."""

from moe_np.experiments.translation.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.translation.report import report
from moe_np.experiments.translation.runs import PAPER, Config, run_one, summarise

SUMMARY = "English verses into Spanish: LSTM and Switch, with experts against dense"
