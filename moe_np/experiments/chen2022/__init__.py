"""Synthetic clusters of Chen et al. 2022: linear and cubic experts, accuracy and dispatch entropy."""

from moe_np.experiments.common.experiment import Option
from moe_np.experiments.chen2022.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = (
    Option("setting", "the data", (1, 2, 3, 4)),
    Option("variant", "the algorithm as published, or as the paper writes it", ("code", "paper")),
)
SUMMARY = "synthetic clusters of Chen et al. 2022: linear and cubic experts, accuracy and dispatch entropy"
