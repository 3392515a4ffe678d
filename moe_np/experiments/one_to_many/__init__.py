"""The inverse problem of Bishop's and Murphy's books: a net averages, a mixture keeps branches."""

from moe_np.experiments.one_to_many.experiment import OPTIONS, SMOKE, SYSTEMS, run, specs
from moe_np.experiments.one_to_many.report import report
from moe_np.experiments.one_to_many.runs import PAPER, Config, run_one, summarise

SUMMARY = "the inverse problem of Bishop's and Murphy's books: a net averages, a mixture does not"
