"""The mixture of Chen et al. 2022 against PyTorch's autograd: same numbers, float64, both gates and
losses.
"""

import numpy as np
import pytest

from moe_np.experiments.chen2022 import bench
from moe_np.models import patch_cnn, patch_cnn_training

pytest.importorskip("torch")
VARIANTS = [
    (a, g, loss)
    for a in patch_cnn.ACTIVATIONS
    for g in patch_cnn.GATES
    for loss in patch_cnn.LOSSES
]


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    E, filters, D, N, P = 5, 6, 7, 60, 3
    params = {
        k: 0.4 * rng.normal(size=s)
        for k, s in {"w": (E, filters, D), "b": (E, filters), "theta": (E, D)}.items()
    }
    return params, rng.normal(size=(N, P, D)), rng.integers(2, size=N), rng.random((N, E))


@pytest.mark.parametrize(("activation", "gate", "loss"), VARIANTS)
def test_loss_and_gradients(problem, activation, gate, loss):
    params, x, y, noise = problem
    variant = {"activation": activation, "gate": gate, "loss": loss}
    value, expert, grads = bench.torch_gradients(params, x, y, noise, **variant)
    assert len(set(expert)) > 2
    for ours in (patch_cnn_training.gradients, patch_cnn_training.gradients_numpy):
        our_value, our_expert, our_grads = ours(
            params, patch_cnn_training.batch(x, y), noise, **variant
        )
        assert abs(our_value - value) <= 1e-10 * abs(value)
        assert np.array_equal(our_expert, expert)
        for k, g in grads.items():
            assert np.abs(our_grads[k] - g).max() <= 1e-10 * np.abs(g).max(), k


def test_a_few_training_steps(problem):
    """The whole step of the notebooks, update and entropy included: the same path from the same
    noise.
    """
    torch = pytest.importorskip("torch")
    params, x, _, _ = problem
    rng = np.random.default_rng(6)
    y, cluster = rng.integers(2, size=len(x)), rng.integers(4, size=len(x))
    torch.manual_seed(3)
    theirs = bench.torch_steps(params, chen2022_data(x, y, cluster), "cubic")
    first = [next(theirs) for _ in range(5)]
    torch.manual_seed(3)
    ours = patch_cnn_training.train_mixture(
        params,
        patch_cnn_training.batch(x, y),
        cluster,
        lambda shape: torch.rand(*shape).numpy(),
        epochs=5,
        activation="cubic",
        stop=False,
        **bench.replay.TRAINING,
    )
    for (loss, entropy), step in zip(first, ours, strict=True):
        assert abs(step.loss - loss) < 1e-10 and abs(step.entropy - entropy) < 1e-10


def chen2022_data(x, y, cluster):
    from moe_np.data.clusters import Clusters

    return Clusters(x, y, cluster, None, None)
