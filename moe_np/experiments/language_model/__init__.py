"""A decoder on the King James Bible: dense against experts, by tokens and by time."""

from moe_np.experiments.language_model.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.language_model.report import report
from moe_np.experiments.language_model.runs import PAPER, Config, run_one, summarise

SUMMARY = "a decoder on the King James Bible: dense against experts, by tokens and by time"
