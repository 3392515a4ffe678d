"""Cross-entropy against PyTorch: ignored targets, label smoothing, soft targets, and gradients."""

import numpy as np
import pytest

from moe_np.layers import cross_entropy

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("with_soft", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 3e-6)])
def test_loss_and_gradient(backend, smoothing, with_soft, dtype, tolerance):
    rng = np.random.default_rng(0)
    logits = (4 * rng.normal(size=(50, 30))).astype(dtype)
    targets = rng.integers(0, 30, 50)
    targets[::7] = -100
    soft = rng.dirichlet(np.ones(30), 50).astype(dtype) if with_soft else None
    tensor = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        tensor,
        torch.tensor(soft if with_soft else targets),
        label_smoothing=smoothing,
        **({} if with_soft else {"ignore_index": -100}),
    )
    (1.5 * loss).backward()
    ours, cache = cross_entropy.forward(
        logits, None if with_soft else targets, ignore=-100, smoothing=smoothing, soft=soft
    )
    assert ours == pytest.approx(loss.item(), rel=tolerance)
    dlogits = cross_entropy.backward(1.5, cache)
    np.testing.assert_allclose(dlogits, tensor.grad.numpy(), rtol=tolerance, atol=tolerance / 10)
