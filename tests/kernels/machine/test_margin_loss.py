"""The loss of samples from margins: against the pair of the models, and one sample at a time."""

import numpy as np
import pytest

from moe_np.models import patch_cnn as twin
from tests.support.kernels import numba

if numba:
    from moe_np.kernels.machine import margin_loss


@pytest.mark.parametrize("loss", ["once", "twice"])
def test_loss_and_its_gradients(loss):
    rng = np.random.default_rng(0)
    n = 30
    f = 4 * rng.normal(size=n)
    f[:3] = 0, 60, -60
    weight = rng.uniform(0.5, 2, n)
    y = rng.integers(2, size=n)
    out = np.column_stack([np.zeros(n), weight * f])
    value, cache = twin.loss_forward(out, y, loss=loss)
    slope = np.diff(twin.loss_backward(1.0, cache))[:, 0] / 2  # of out₁ − out₀
    sample = rng.permutation(n)
    df = f[sample]
    dweight = np.empty(n)
    twice = loss == "twice"
    scratch = np.empty(n), np.empty(n)
    total = margin_loss.loss_of_samples(sample, df, y, weight, twice, *scratch, dweight)
    assert total / n == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(dweight, slope * f, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(df, (slope * weight)[sample], rtol=1e-9, atol=1e-15)
