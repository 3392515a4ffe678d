"""Why a mixture works: eleven claims of articles and papers, each against numbers."""

from moe_np.experiments.why_it_works.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = ()
SUMMARY = "why a mixture works: eleven claims of articles and papers, each against numbers"
