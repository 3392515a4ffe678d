"""Clusters of Chen et al. (2022): linear and cubic experts, accuracy and dispatch entropy."""

from moe_np.experiments.chen2022.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.chen2022.published_numbers import PAPER
from moe_np.experiments.chen2022.report import report
from moe_np.experiments.chen2022.runs import SYSTEMS, Config, run_one, summarise

SUMMARY = "clusters of Chen et al. 2022: linear and cubic experts, accuracy and dispatch entropy"
