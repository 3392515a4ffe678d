"""Calibration: do events with a predicted probability of 80 % come in 80 % of the cases?

    Brier score    (1/N) Σ_n (p_n − y_n)², y_n 0 or 1 (Brier 1950)
    reliability    cases in bins by p: per bin their number, Σ p and Σ y (DeGroot and Fienberg 1983)
    ECE            Σ_bins (n_b / N) |mean of p − mean of y| (Naeini et al. 2015), the expected
                   calibration error; of few cases it is above 0 by chance alone
    coverage       share of the cases whose y lies in the interval that was predicted for it

A regression that predicts a distribution is calibrated where P(Y ≤ y) is uniform between 0 and 1.
"""

from typing import Annotated

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayN

BINS = 10

Bins = Annotated[np.ndarray, "BINS"]


def checked(p: ArrayN, y: ArrayN) -> tuple[ArrayN, ArrayN]:
    """p and y as float64 (N,). Raises InputError unless 0 ≤ p ≤ 1, y is 0 or 1, and N ≥ 1."""
    p = checks.array("p", p, ("N",)).astype(np.float64)
    y = checks.array("y", y, (len(p),)).astype(np.float64)
    if not len(p):
        raise InputError("p: wanted at least one case, got none")
    if p.min() < 0 or p.max() > 1:
        raise InputError(f"p: wanted probabilities, got {p.min():g} to {p.max():g}")
    if not np.isin(y, (0, 1)).all():
        raise InputError("y: wanted 0 or 1 per case, got other numbers")
    return p, y


def brier(p: ArrayN, y: ArrayN) -> float:
    """The Brier score of probabilities p (N,) of an event y (N,), 0 at best."""
    p, y = checked(p, y)
    return float(((p - y) ** 2).mean())


def reliability(p: ArrayN, y: ArrayN) -> tuple[Bins, Bins, Bins]:
    """-> (cases, Σ p, Σ y) of ten bins of equal width; p = 1 is in the last one."""
    p, y = checked(p, y)
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    of_bins = (np.bincount(place, weights, BINS) for weights in (np.ones_like(p), p, y))
    count, predicted, seen = of_bins
    return count, predicted, seen


def ece(count: Bins, predicted: Bins, seen: Bins) -> float:
    """The expected calibration error of what `reliability` gives, also of several added up."""
    return float(np.abs(predicted - seen).sum() / count.sum())


def ece_by_chance(p: ArrayN, rng: np.random.Generator, draws: int = 200) -> float:
    """The mean ECE where the probabilities p are right: y is drawn from them."""
    values = []
    for _ in range(checks.integer("draws", draws)):
        y = (rng.random(len(p)) < p).astype(float)
        values.append(ece(*reliability(p, y)))
    return float(np.mean(values))
