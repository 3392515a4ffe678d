"""The picture at the top of the README: the same division of work, 1991 and 2022.

Left, the vowels of 1991; right, the clusters of 2022. No expert was told which part of the data it
should learn. `figures/readme.png` is a copy of what this script makes.
"""

from figures import Job
from figures.chen2022 import fig1 as chen2022_fig1
from figures.chen2022.fig1 import CONFIG, SETTING, N
from figures.jacobs1991 import fig2 as jacobs1991_fig2
from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.experiments.chen2022.runs import data as draw_samples
from moe_np.experiments.jacobs1991.runs import Config, spec_of, train

SEED = 1  # the first seed of chen2022_fig1 with which every cluster gets an expert
TITLE = "Experts find their own part of the data, 1991 and 2022"
ORDER = 60


def make(job: Job) -> str:
    """Train both mixtures and draw the picture; return its section of the report."""
    import matplotlib.pyplot as plt

    vowels, _, mixture = train(spec_of(Config(), "4 experts", jacobs1991_fig2.SEED))
    data = draw_samples(SETTING, CONFIG.data_seed, N, CONFIG.n_test).train
    with one_blas_thread():
        run = chen2022_fig1.train(data, "cubic", SEED)
    last = run.snapshots[max(run.snapshots)]  # the last pass
    with plots.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6), width_ratios=(1.25, 1))
        jacobs1991_fig2.draw(left, vowels, mixture.params)
        left.set_title("1991: two experts of four share the vowels", fontsize=17, pad=14)
        chen2022_fig1.draw(right, data, last, "cubic", with_regions=True)
        chen2022_fig1.name_experts(right, data, last)
        right.set_title("2022: four experts, a cluster each", fontsize=17, pad=14)
        job.save(fig, "cover")
    return (
        "![vowels and clusters](cover.png)\n\n"
        "Left, a trained mixture of four experts on the vowels (Fig. 2 below); right, four cubic "
        "experts on four clusters at the end of training (the last column of Chen et al.'s Fig. 1 "
        "below)."
    )
