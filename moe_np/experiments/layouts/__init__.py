"""Experts in every layer, every other or half of them; initial scale; routers in bfloat16."""

from moe_np.experiments.layouts.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.layouts.report import report
from moe_np.experiments.layouts.runs import PAPER, SYSTEMS, Config, run_one, summarise

SUMMARY = "experts in every layer, every other or half of them; initial scale; routers in bfloat16"
