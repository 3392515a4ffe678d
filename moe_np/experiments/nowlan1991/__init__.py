"""Ten vowels of Nowlan and Hinton (1991): competing experts against backprop."""

from moe_np.experiments.nowlan1991.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.nowlan1991.report import report
from moe_np.experiments.nowlan1991.runs import PAPER, SYSTEMS, Config, run_one, summarise

SUMMARY = "ten vowels of Nowlan and Hinton 1991: mixture against backprop, the speaker known or not"
