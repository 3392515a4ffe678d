"""The compiled mean loss of competing experts: against the equations and a naive loop."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.mixtures import nowlan1991 as twin
from tests.support.kernels import numba

if numba:
    from moe_np.kernels import nowlan1991


def random_case(N, scale):
    """Parameters, inputs of experts and gating network, targets."""
    rng = np.random.default_rng(0)
    shapes = {"W": (3, 2, 3), "b": (3, 3), "U": (4, 3), "c": (3,)}
    params = {name: scale * rng.normal(size=shape) for name, shape in shapes.items()}
    d = np.eye(3)[rng.integers(3, size=N)]
    return params, rng.normal(size=(N, 2)), rng.normal(size=(N, 4)), d


@pytest.mark.parametrize(("N", "scale"), [(7, 1.0), (16, 1.0), (9, 40.0)])
def test_loss_and_gradients_are_those_of_the_equations(N, scale):
    params, x, z, d = random_case(N, scale)  # up to saturated softmaxes
    wanted, wanted_grads = twin.mean_loss(params, x, z, d, sigma=0.25)
    loss, grads = nowlan1991.mean_loss_of(x, z, d, 0.25)(params)
    assert loss == pytest.approx(wanted, rel=1e-12)
    for name, g in wanted_grads.items():
        assert grads[name].shape == g.shape
        np.testing.assert_allclose(grads[name], g, rtol=1e-9, atol=1e-12)


def test_loss_by_a_naive_loop():
    params, x, z, d = random_case(7, 1.0)
    loss = 0.0
    for n in range(7):
        p = numerics.softmax((z[n] @ params["U"] + params["c"])[None])[0]
        likelihood = 0.0
        for e in range(3):
            o = numerics.softmax((x[n] @ params["W"][e] + params["b"][e])[None])[0]
            likelihood += p[e] * np.exp(-((d[n] - o) ** 2).sum() / (2 * 0.4**2))
        loss -= np.log(likelihood)
    compiled, _ = nowlan1991.mean_loss_of(x, z, d, 0.4)(params)
    assert compiled == pytest.approx(loss / 7, rel=1e-12)
