"""Health: breast cancer and diabetes, mixtures of experts beside usual methods, and calibration."""

from moe_np.experiments.health.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.health.report import report
from moe_np.experiments.health.runs import PAPER, SYSTEMS, Config, run_one, summarise

SUMMARY = "health: breast cancer and diabetes, mixtures beside usual methods, and calibration"
