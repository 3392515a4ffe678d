"""Ten vowels of Nowlan and Hinton 1991: competing experts against backprop, the gate told who speaks."""

from moe_np.experiments.nowlan1991.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = ()
SUMMARY = "ten vowels of Nowlan and Hinton 1991: competing experts against backprop, the gate told who speaks"
