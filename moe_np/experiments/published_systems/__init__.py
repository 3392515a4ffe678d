"""The model of cost beside published measurements of systems with experts on many devices."""

from moe_np.experiments.published_systems.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.published_systems.measurements import PAPER, Config, run_one, summarise
from moe_np.experiments.published_systems.report import report

SUMMARY = "published times of systems with experts on many devices, beside the model of cost"
