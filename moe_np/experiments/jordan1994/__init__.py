"""Robot arm of Jordan and Jacobs 1994, a surrogate: trees of experts by EM and on-line, backprop, CART."""

from moe_np.experiments.common.experiment import Option
from moe_np.experiments.jordan1994.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = (Option("sensitivity", "other covariances and other ranges of the surrogate arm"),)
SUMMARY = "robot arm of Jordan and Jacobs 1994, a surrogate: trees of experts by EM and on-line, backprop, CART"
