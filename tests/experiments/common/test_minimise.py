"""L-BFGS on a dict of parameters."""

import numpy as np

from moe_np.experiments.common.minimise import minimise


def test_the_minimum_of_a_quadratic():
    rng = np.random.default_rng(0)
    target = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}

    def loss_and_grads(params):
        loss = sum(((params[name] - target[name]) ** 2).sum() for name in params)
        grads = {name: 2 * (params[name] - target[name]) for name in reversed(params)}
        return loss, grads

    initial = {name: np.zeros_like(value) for name, value in target.items()}
    minimum = minimise(loss_and_grads, initial)
    assert minimum.converged and minimum.loss < 1e-8
    assert not any(value.any() for value in initial.values()), "the arguments are not changed"
    for name in target:
        np.testing.assert_allclose(minimum.params[name], target[name], atol=1e-4)
    assert not minimise(loss_and_grads, initial, max_iter=1).converged
