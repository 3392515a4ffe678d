"""Sparse upcycling: a dense decoder goes on as a mixture, goes on dense, or begins anew."""

from moe_np.experiments.upcycling.experiment import (
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
from moe_np.experiments.upcycling.report import report

SUMMARY = "upcycling: a dense decoder goes on as a mixture, against dense, and against anew"
