"""A population of mixtures as vectors, for training methods without a gradient.

A mixture is one vector of n numbers, `moe_np.base.params.flatten(params)`: first the experts, then
the gate. A population of M mixtures is an array (M, n).
"""

from typing import Annotated

import numpy as np

from moe_np.base.numerics import log_softmax, logsumexp
from moe_np.training.methods.method import PARTS, MixtureParams, Problem, log_densities

Vectors = Annotated[np.ndarray, "M, n"]


def expert_of_entry(params: MixtureParams) -> Annotated[np.ndarray, "n"]:
    """The number of the expert that each entry of the vector belongs to.

    An expert has its parameters and its column of the gate.
    """
    E = _n_experts(params)
    numbers = [np.repeat(np.arange(E), a.size // E) for a in params["experts"].values()]
    numbers += [np.tile(np.arange(E), a.size // E) for a in params["gate"].values()]
    return np.concatenate(numbers)


def _n_experts(params):
    return len(next(iter(params["experts"].values())))


def stack_mixtures(vectors: Vectors, like: MixtureParams) -> MixtureParams:
    """The parameters of one mixture with the M·E experts and gate columns of M mixtures.

    like    the parameters of one of the mixtures, for names and shapes
    """
    E = _n_experts(like)
    M = len(vectors)
    stacked = {part: {} for part in PARTS}
    place = 0
    for part in PARTS:
        for name, a in like[part].items():
            entries = vectors[:, place : place + a.size]
            place += a.size
            if part == "experts":
                stacked[part][name] = entries.reshape(M * E, *a.shape[1:])
            else:
                columns = np.moveaxis(entries.reshape(M, *a.shape), 0, -2)  # (..., M, E)
                stacked[part][name] = columns.reshape(*a.shape[:-1], M * E)
    return stacked


def population_losses(
    problem: Problem, vectors: Vectors, like: MixtureParams
) -> Annotated[np.ndarray, "M"]:
    """The losses of M mixtures, one pass each. NaN counts as infinity.

    All experts of the population are computed at once; each mixture has the softmax of its gate.
    """
    stacked = stack_mixtures(vectors, like)
    with np.errstate(over="ignore", invalid="ignore"):  # a mutation can be arbitrarily large
        log_f, _ = log_densities(problem, stacked["experts"])
        logits, _ = problem.gate_forward(stacked["gate"], problem.x)
        shape = (len(log_f), len(vectors), _n_experts(like))
        case_loss = -logsumexp(log_softmax(logits.reshape(shape)) + log_f.reshape(shape))
        losses = case_loss.mean(axis=0)
    return np.where(np.isnan(losses), np.inf, losses)
