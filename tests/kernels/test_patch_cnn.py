"""The compiled passes of the models of Chen et al. 2022: against NumPy and a naive loop."""

import numpy as np
import pytest

from moe_np.models import patch_cnn as model
from moe_np.models import patch_cnn_training as twin
from tests.support.kernels import JIT, numba
from tests.support.patch_cnn import VARIANTS, problem

if numba:
    from moe_np.kernels import patch_cnn


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("activation", "gate", "loss"), VARIANTS)
def test_a_pass_equals_numpy(activation, gate, loss, dtype):
    # blocks of the router and a short one; full bins and others
    n = 157 if dtype == np.float64 or not JIT else 1157
    tolerance = 1e-11 if dtype == np.float64 else 3e-4
    params, x, y, noise, _ = problem(n=n, dtype=dtype)
    batch = twin.batch(x, y)
    options = {"activation": activation, "gate": gate, "loss": loss}
    for r in (noise, None):
        value, expert, grads = twin.gradients_numpy(params, batch, r, **options)
        value2, expert2, grads2 = patch_cnn.gradients(params, batch, r, **options)
        assert value2 == pytest.approx(value, rel=tolerance)
        assert (expert2 == expert).all()
        for name, g in grads.items():
            assert grads2[name].dtype == dtype
            assert np.abs(grads2[name] - g).max() <= tolerance * np.abs(g).max()


@pytest.mark.parametrize("activation", model.ACTIVATIONS)
def test_loss_by_a_naive_loop(activation):
    """Sample by sample: the chosen expert, its two outputs, the cross-entropy of their softmax."""
    params, x, y, noise, _ = problem(n=40)
    options = {"activation": activation, "gate": "raw", "loss": "once"}
    loss, expert, _ = patch_cnn.gradients(params, twin.batch(x, y), noise, **options)
    filters = params["b"].shape[1]
    total = 0.0
    for n in range(40):
        h = [(x[n] @ theta).sum() + r for theta, r in zip(params["theta"], noise[n], strict=True)]
        m = int(np.argmax(h))
        assert m == expert[n]
        z = x[n] @ params["w"][m].T + params["b"][m]
        s = (z**3 if activation == "cubic" else z).sum(axis=0)
        out = h[m] * np.array([s[: filters // 2].sum(), s[filters // 2 :].sum()])
        total += np.logaddexp(*out) - out[y[n]]
    assert loss == pytest.approx(total / 40, rel=1e-11)


@pytest.mark.parametrize("activation", model.ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 128, 300])
def test_a_pass_where_one_expert_gets_nearly_everything(activation, n):
    params, x, y, noise, _ = problem(n=n)
    noise[: max(n - 2, 1), 2] += 100  # experts 0, 1 and 3 have one sample each or none
    batch = twin.batch(x, y)
    options = {"activation": activation, "gate": "softmax", "loss": "twice"}
    value, expert, grads = twin.gradients_numpy(params, batch, noise, **options)
    assert (expert == 2).sum() >= max(n - 2, 1)
    value2, expert2, grads2 = patch_cnn.gradients(params, batch, noise, **options)
    assert value2 == pytest.approx(value, rel=1e-12)
    assert (expert2 == expert).all()
    for name, g in grads.items():
        assert np.abs(grads2[name] - g).max() <= 1e-11 * np.abs(g).max()


@pytest.mark.parametrize("activation", model.ACTIVATIONS)
def test_a_single_model_equals_numpy(activation):
    params, x, y, _, _ = problem(n=157)
    single = {name: params[name][:1] for name in ("w", "b")}
    batch = twin.batch(x, y)
    value, grads = twin.single_gradients_numpy(single, batch, activation=activation)
    value2, grads2 = patch_cnn.single_gradients(single, batch, activation=activation)
    assert value2 == pytest.approx(value, rel=1e-12)
    for name, g in grads.items():
        np.testing.assert_allclose(grads2[name], g, atol=1e-12 * np.abs(g).max() + 1e-15)
