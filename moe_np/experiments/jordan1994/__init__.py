"""Robot arm of Jordan and Jacobs (1994), a surrogate: trees of experts, backprop and CART."""

from moe_np.experiments.jordan1994.experiment import (
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
from moe_np.experiments.jordan1994.report import report

SUMMARY = "robot arm of Jordan and Jacobs 1994, a surrogate: trees of experts, backprop and CART"
