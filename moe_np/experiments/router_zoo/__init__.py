"""Every router on one associative memory: quality, balance, dropped share and time."""

from moe_np.experiments.router_zoo.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = ()
SUMMARY = "every router on one associative memory: quality, balance, dropped share and time"
