"""Frameworks: the sparse layer in PyTorch, JAX and Keras beside ours; what is built in."""

from moe_np.experiments.frameworks.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.frameworks.report import report
from moe_np.experiments.frameworks.runs import PAPER, SYSTEMS, Config, run_one, summarise

SUMMARY = "frameworks: the sparse layer in PyTorch, JAX and Keras: numbers, speed, what is built in"
