"""Vowels of Jacobs et al. (1991): mixtures of 4 and 8 experts against backprop nets of 6 and 12."""

from moe_np.experiments.jacobs1991.experiment import (
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
from moe_np.experiments.jacobs1991.report import report

SUMMARY = "vowels of Jacobs et al. 1991: 4 and 8 experts against backprop nets of 6 and 12"
