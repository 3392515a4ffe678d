"""Table 6 of Shazeer et al. (2017): the load-balancing losses of noisy top-k gating, on and off."""

from moe_np.experiments.shazeer2017.experiment import (
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
from moe_np.experiments.shazeer2017.report import report

SUMMARY = "Table 6 of Shazeer et al. 2017: the balance losses of noisy top-k gating, on and off"
