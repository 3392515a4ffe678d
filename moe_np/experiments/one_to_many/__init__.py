"""The inverse problem of Bishop's and Murphy's books: a net averages the branches, a mixture keeps them."""

from moe_np.experiments.one_to_many.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = ()
SUMMARY = "the inverse problem of Bishop's and Murphy's books: a net averages the branches, a mixture keeps them"
