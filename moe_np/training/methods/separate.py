"""Separate training: clusters of the cases first, then each expert on its cluster, then the gate on
the numbers of the clusters.

    1  label_n = the cluster of case n       k-means on `problem.features`, or labels that are given
    2  experts: −Σ_n log f_label(n)(y_n)     each expert learns from the cases of its cluster only
    3  gate:    −Σ_n log p_label(n)(x_n)     learns the cluster, whatever the experts are good at

No phase uses the likelihood of the whole mixture, which every step reports.
"""

from collections.abc import Iterator

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, ArrayN, Rng
from moe_np.routing import kmeans
from moe_np.training.methods import method
from moe_np.training.methods.method import MixtureParams, Problem, Step


def train(
    problem: Problem,
    rng: Rng,
    *,
    initial: MixtureParams | None = None,
    lr: float = 0.03,
    expert_steps: int = 500,
    labels: ArrayN | None = None,
) -> Iterator[Step]:
    """Clusters, then `expert_steps` steps of Adam for the experts, then steps for the gate.

    labels    (N,) whole numbers below E in place of the clusters of k-means

    One pass per step. A round of k-means counts as half a pass, as the gate does: it compares every
    case with one vector per expert. lr is the learning rate.
    """
    params = method.initial_params(problem, checks.generator("rng", rng), initial)
    lr = checks.number("lr", lr, greater_than=0)
    expert_steps = checks.integer("expert_steps", expert_steps, minimum=0)
    loss, cache = method.forward(problem, params)
    yield Step(0, loss, (), params, cache, 0.0)
    N, E = cache.log_f.shape
    rounds = 0
    if labels is None:
        labels, rounds = cluster(rng, problem.features, E)
    target = np.eye(E)[check_labels(labels, N, E)]
    states = {}
    number = 1
    passes = rounds / 2
    yield Step(number, loss, ("clusters",), params, cache, passes)
    while True:
        if number <= expert_steps:
            part = "experts"
            grads = method.log_densities_backward(problem, -target / N, cache.experts)
        else:
            part = "gate"
            dlogits = method.cross_entropy_backward(cache.p, target)
            grads = problem.gate_backward(dlogits, cache.gate)[1]
        params, states = method.adam_step(params, {part: grads}, states, lr)
        loss, cache = method.forward_part(problem, params, cache, part)
        number += 1
        passes += 1
        yield Step(number, loss, (part,), params, cache, passes)


def cluster(rng: Rng, features: Array, n_experts: int) -> tuple[ArrayN, int]:
    """k-means: (labels (N,), number of rounds)."""
    centroids, inertia = kmeans.fit(rng, features, n_experts)
    distances = kmeans.distances(features, centroids["centroids"])
    return distances.argmin(axis=1), len(inertia)


def check_labels(labels: ArrayN, n_cases: int, n_experts: int) -> ArrayN:
    """`labels` as an array, after checking that they are whole numbers below `n_experts`."""
    labels = checks.array("labels", labels, (n_cases,), kind="i")
    if labels.min() < 0 or labels.max() >= n_experts:
        raise InputError(
            f"labels: wanted whole numbers from 0 to {n_experts - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    return labels
