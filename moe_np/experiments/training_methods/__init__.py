"""Joint, alternating, separate, EM, hard, evolutionary: nine ways to train on three problems; articles' claims."""

from moe_np.experiments.training_methods.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = ()
SUMMARY = "joint, alternating, separate, EM, hard, evolutionary: nine ways to train on three problems; articles' claims"
