"""LSTM, experts, LSTM on the King James Bible: perplexity against the number of experts."""

from moe_np.experiments.shazeer2017_language.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.shazeer2017_language.report import report
from moe_np.experiments.shazeer2017_language.runs import PAPER, Config, run_one, summarise

SUMMARY = "LSTM, experts, LSTM on the King James Bible: perplexity by the number of experts"
