"""Table 6 of Shazeer et al. 2017: the balance losses of noisy top-k gating, on and off."""

from moe_np.experiments.shazeer2017.experiment import PAPER, Config, run, run_one, table

report = table
SYSTEMS = ()
OPTIONS = ()
SUMMARY = "Table 6 of Shazeer et al. 2017: the balance losses of noisy top-k gating, on and off"
