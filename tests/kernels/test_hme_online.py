"""Compiled on-line learning: a tree against its NumPy twin, a net against a naive loop.

tests/mixtures/test_hme_online.py compares whole passes for all trees and options.
"""

import numpy as np
import pytest

from moe_np.mixtures import hme
from moe_np.mixtures import hme_online as twin
from tests.support.kernels import numba
from tests.support.mixtures import random_tree

if numba:
    from moe_np.kernels import hme_online


@pytest.mark.parametrize("lr", [None, 0.05])
def test_the_loss_before_each_case_is_that_of_the_equations(lr):
    params, x, y = random_tree((2, 3), N=12)
    memory = twin.init_memory(params)
    for i in range(12):
        loss, _ = hme.forward(params, x[i : i + 1], y[i : i + 1])
        new = twin.compiled_pass(params, memory, x, y, np.array([i]), lr, twin.DEFAULT)
        wanted = twin.numpy_pass(params, memory, x, y, np.array([i]), lr, twin.DEFAULT)
        assert new[2] == pytest.approx(float(loss.sum()), rel=1e-10)
        for name in params:
            np.testing.assert_allclose(new[0][name], wanted[0][name], rtol=1e-9, atol=1e-12)
        params, memory, _ = wanted


def test_an_epoch_of_the_net_by_a_naive_loop():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(15, 3)), np.ones(15)])
    y = rng.normal(size=(15, 2))
    W, V = rng.normal(size=(4, 5)), rng.normal(size=(2, 6))
    order = rng.permutation(15)
    W_naive, V_naive = W.copy(), V.copy()
    total = 0.0
    for i in order:
        hidden = np.append(1 / (1 + np.exp(-x[i] @ W_naive)), 1.0)
        error = y[i] - V_naive @ hidden
        total += 0.5 * (error**2).sum()
        dhidden = (V_naive.T @ error)[:5] * hidden[:5] * (1 - hidden[:5])
        V_naive += 0.1 * np.outer(error, hidden)
        W_naive += 0.1 * np.outer(x[i], dhidden)
    loss = hme_online.net_epoch(x, y, order, W, V, 0.1)
    assert loss == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(W, W_naive, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(V, V_naive, rtol=1e-10, atol=1e-13)
