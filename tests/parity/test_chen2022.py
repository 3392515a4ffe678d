"""The mixture of Chen et al. 2022 against autograd in PyTorch: float64, both gates and losses."""

import numpy as np
import pytest

from moe_np.data.clusters import Clusters
from moe_np.experiments.chen2022 import bench, replay
from moe_np.models import patch_cnn_training
from tests.support.patch_cnn import VARIANTS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    E, F, D, N, P = 5, 6, 7, 60, 3
    shapes = {"w": (E, F, D), "b": (E, F), "theta": (E, D)}
    params = {name: 0.4 * rng.normal(size=shape) for name, shape in shapes.items()}
    return params, rng.normal(size=(N, P, D)), rng.integers(2, size=N), rng.random((N, E))


@pytest.mark.parametrize(("activation", "gate", "loss"), VARIANTS)
def test_loss_and_gradients(problem, activation, gate, loss):
    params, x, y, noise = problem
    variant = {"activation": activation, "gate": gate, "loss": loss}
    value, expert, grads = bench.torch_gradients(params, x, y, noise, **variant)
    assert len(set(expert)) > 2
    batch = patch_cnn_training.batch(x, y)
    for gradients in (patch_cnn_training.gradients, patch_cnn_training.gradients_numpy):
        value2, expert2, grads2 = gradients(params, batch, noise, **variant)
        assert abs(value2 - value) <= 1e-10 * abs(value)
        assert np.array_equal(expert2, expert)
        for name, g in grads.items():
            assert np.abs(grads2[name] - g).max() <= 1e-10 * np.abs(g).max(), name


def test_five_training_steps(problem):
    """The whole step of the notebooks, with update and entropy, from the same noise."""
    params, x, _, _ = problem
    rng = np.random.default_rng(6)
    y = rng.integers(2, size=len(x))
    cluster = rng.integers(4, size=len(x))
    torch.manual_seed(3)
    torch_steps = bench.torch_steps(params, Clusters(x, y, cluster, None, None), "cubic")
    expected = [next(torch_steps) for _ in range(5)]
    torch.manual_seed(3)
    passes = patch_cnn_training.train_mixture(
        params,
        patch_cnn_training.batch(x, y),
        cluster,
        lambda shape: torch.rand(*shape).numpy(),
        epochs=5,
        activation="cubic",
        stop=False,
        **replay.TRAINING,
    )
    for (loss, entropy), step in zip(expected, passes, strict=True):
        assert abs(step.loss - loss) < 1e-10 and abs(step.entropy - entropy) < 1e-10
