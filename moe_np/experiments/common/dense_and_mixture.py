"""A mixture beside two dense models, one of equal operations and one of equal size, seed by seed.

    model                      experts   hidden units of each   operations per case
    dense, equal operations    1         k H                    those of k experts
    mixture                    E         H                      those of k experts, and the router
    dense, equal size          1         E H                    E / k times as many

Models of one seed have the same data and the same minibatches. `comparisons` decides between them.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN, Rng
from moe_np.layers import diagnostics

MIXTURE = "mixture"
SAME_OPERATIONS = "dense, equal operations"
SAME_SIZE = "dense, equal size"
MODELS = (SAME_OPERATIONS, MIXTURE, SAME_SIZE)


class Shape(NamedTuple):
    """Experts and the hidden units of each; a dense model has one expert and no router."""

    experts: int
    hidden: int


def shape(model: str, *, experts: int, hidden: int, k: int) -> Shape:
    """The shape of a model beside a mixture of `experts` with `hidden` units, k per case."""
    checks.choice("model", model, MODELS)
    if model == MIXTURE:
        return Shape(experts, hidden)
    return Shape(1, hidden * (k if model == SAME_OPERATIONS else experts))


def in_use(expert: ArrayN, n_experts: int, *, least: float = 0.01) -> int:
    """The number of experts that take at least this share of the cases."""
    shares = np.bincount(np.asarray(expert), minlength=n_experts) / max(len(expert), 1)
    return int((shares >= least).sum())


def taken_up(expert: ArrayN, label: ArrayN, rng: Rng) -> float:
    """How much of a label the expert of a case tells: percent of the label's entropy, less what a
    permutation of the labels gives.
    """
    information = diagnostics.mutual_information(np.asarray(expert), np.asarray(label), rng)
    beyond_chance = information.bits - information.permuted
    return 100 * beyond_chance / max(information.label_bits, 1e-12)
