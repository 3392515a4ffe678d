"""Separate training: cut the data up first, train each expert on its own piece, then the gate on
the pieces' numbers.

    1  label_n = the cluster of case n       k-means on `problem.features`, or labels that are given
    2  experts: −Σ_n log f_label(n)(y_n)     each sees its own cases only, and none knows of the others or of a gate
    3  gate:    −Σ_n log p_label(n)(x_n)     learns to name the cluster, whatever the experts turned out to be good at

Nothing in it looks at the likelihood of the whole, which every step reports all the same.
"""

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.routing import kmeans
from moe_np.training.methods import method
from moe_np.training.methods.alternating import look_again
from moe_np.training.methods.method import Step


def train(problem, rng, *, start=None, lr=0.03, expert_steps=500, labels=None):
    """Clusters, then `expert_steps` of Adam for the experts, then the gate for ever. One pass a
    step.

    labels    (N,) whole numbers below E in place of the clusters of k-means
    A round of k-means counts as half a pass, as the gate does: it compares every case with one vector an expert.
    """
    params, states = method.begin(problem, checks.generator("rng", rng), start), {}
    lr = checks.number("lr", lr, above=0)
    expert_steps = checks.integer("expert_steps", expert_steps, minimum=0)
    loss, cache = method.forward(problem, params)
    yield Step(0, loss, (), params, cache, 0.0)
    N, E = cache.log_f.shape
    if labels is None:
        labels, rounds = cluster(rng, problem.features, E)
    else:
        labels, rounds = check_labels(labels, N, E), 0
    own, number, passes = np.eye(E)[labels], 1, rounds / 2
    yield Step(number, loss, ("clusters",), params, cache, passes)
    while True:
        part = method.PARTS[number > expert_steps]
        if part == "experts":
            grads = method.experts_backward(problem, -own / N, cache.experts)
        else:
            grads = problem.gate_backward(method.cross_entropy_backward(cache.p, own), cache.gate)[
                1
            ]
        params, states = method.descend(params, {part: grads}, states, lr)
        loss, cache = look_again(problem, params, cache, part)
        number, passes = number + 1, passes + 1
        yield Step(number, loss, (part,), params, cache, passes)


def cluster(rng, features, n_experts):
    """k-means: -> (labels (N,), how many rounds it took)."""
    centroids, inertia = kmeans.fit(rng, features, n_experts)
    return kmeans.distances(features, centroids["centroids"]).argmin(axis=1), len(inertia)


def check_labels(labels, n_cases, n_experts):
    labels = checks.array("labels", labels, (n_cases,), kind="i")
    if labels.min() < 0 or labels.max() >= n_experts:
        raise InputError(
            f"labels: wanted whole numbers from 0 to {n_experts - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels
