"""Data and settings that several questions share.

Dense mixtures: the vowels of Jacobs et al. (1991) under their three errors. Sparse ones, with one
expert per sample: the clusters of Chen et al. (2022), by the algorithm of the paper and by that of
its code. Regressions: mixtures of linear experts by EM.
"""

import functools
import warnings
from typing import NamedTuple

import numpy as np

from moe_np.base.types import ArrayN, ArrayNC, ArrayND, Rng
from moe_np.data.clusters import Clusters, clusters
from moe_np.data.speech.vowels import VowelTask
from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.mixtures import em
from moe_np.models import patch_cnn_training

# error -> learning rate; eq. 1 and 2 have no factor ½, so half the learning rate of eq. 3 makes
# the same step
LEARNING_RATES = {"cooperative": 0.03, "competitive": 0.03, "mixture": 0.06}
EQUATIONS = {"cooperative": "eq. 1", "competitive": "eq. 2", "mixture": "eq. 3"}
VARIANTS = {
    "paper": {"gate": "softmax", "loss": "once", "norm": "joint"},
    "code": {"gate": "raw", "loss": "twice", "norm": "sum"},
}
MEAN_SUM = 15  # θ·Σ_p x_p for θ = Σ_k c_k: β c_k with mean β = 1.5, times 10


def vowels() -> VowelTask:
    """The four vowels, [i] and [ʌ] coded 1."""
    return vowel_runs.task("IY+AH", 1, "file order", 0)


def is_front(vowel: ArrayN) -> ArrayN:
    """Which cases are of the front pair [i] and [ɪ]; the others are of the back pair."""
    return np.isin(vowel, (0, 1))


class Patches(NamedTuple):
    """The samples of setting 1, the same in all runs."""

    train: Clusters
    train_batch: patch_cnn_training.Batch
    test_batch: patch_cnn_training.Batch


@functools.lru_cache(maxsize=2)
def patches(n: int) -> Patches:
    """n training samples and n test samples; the last two draws of a process are kept."""
    train, test = clusters(1, n, n, np.random.default_rng(2022))
    batches = [patch_cnn_training.batch(part.x, part.y) for part in (train, test)]
    return Patches(train, *batches)


def fit_em(rng: Rng, x: ArrayND, d: ArrayNC, n_experts: int, restarts: int) -> em.Fit:
    """A mixture of linear experts with one σ by EM; a run that was cut short is taken as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        return em.fit(x, d, n_experts, family=em.Gaussian("shared"), rng=rng, restarts=restarts)
