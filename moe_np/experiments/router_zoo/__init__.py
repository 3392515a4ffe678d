"""The router zoo: every router on one associative memory."""

from moe_np.experiments.router_zoo.experiment import (
    OPTIONS,
    PAPER,
    SMOKE,
    SYSTEMS,
    Config,
    run,
    run_one,
    specs,
    summarise,
)
from moe_np.experiments.router_zoo.report import report

SUMMARY = "every router on one associative memory: quality, balance, dropped share and time"
