"""Continuous batching: latency against load, sparse against dense, Poisson arrivals and bursts."""

from moe_np.experiments.serving.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.serving.report import report
from moe_np.experiments.serving.runs import PAPER, Config, run_one, summarise

SUMMARY = "continuous batching: latency against load, sparse and dense, Poisson and bursts"
