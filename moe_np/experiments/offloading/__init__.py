"""Experts on disk: hit rates of caches on the choices of a trained router and on uniform ones."""

from moe_np.experiments.offloading.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.offloading.report import report
from moe_np.experiments.offloading.runs import PAPER, Config, run_one, summarise

SUMMARY = "experts on disk: hit rates on a trained router's choices and on uniform ones"
