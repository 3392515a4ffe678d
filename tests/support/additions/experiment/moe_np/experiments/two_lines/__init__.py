"""One line and a mixture of two lines on y = |x|."""

from moe_np.experiments.two_lines.experiment import (
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
from moe_np.experiments.two_lines.report import report

SUMMARY = "one line and a mixture of two lines on y = |x|"
