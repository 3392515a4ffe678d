"""Training methods: joint, alternating, separate, EM, hard routing and evolution, compared."""

from moe_np.experiments.training_methods.experiment import OPTIONS, SMOKE, run, specs
from moe_np.experiments.training_methods.report import report
from moe_np.experiments.training_methods.runs import PAPER, SYSTEMS, Config, run_one
from moe_np.experiments.training_methods.summary import summarise

SUMMARY = (
    "joint, alternating, separate, EM, hard, evolutionary: nine ways to train on three problems"
)
